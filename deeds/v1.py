"""The first version's order body, turned into today's; its errors, turned back into its words.

`data` takes the fields of v2 or the Main API's own names; money there may be a number, and an empty text is a
field left out, because forms send all they have. The order that results passes the same checks as any other.
"""

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from deeds import reading
from deeds.reading import Reading
from partner_api.http.parsing import pointer_to
from partner_api.http.problems import FieldError, Problem, invalid
from partner_api.http.suggestions import suggest

_PROPERTY: Final = {"apn", "county", "legal_description"}
_RECORDING: Final = {"requested_by", "title_company", "escrow_no", "title_order_no", "return_to"}
_TOP: Final = {"vesting", "execution_date", "covenants", "tax_sale_ref", "metadata", "reissue_of"}
# The Main API's layout options, which we leave to the Main API; accepted, with a warning, so that no client
# breaks.
_LAYOUT: Final = {"recorder_profile", "page", "exhibit_threshold"}
_DTT: Final = {
    "amount": "amount",
    "basis": "basis",
    "area_type": "area_type",
    "city_name": "city_name",
    "is_exempt": "exempt",
    "exempt": "exempt",
    "exemption_reason": "exemption_reason",
    "transfer_value": "transfer_value",
}
DATA_FIELDS: Final = sorted(
    _PROPERTY
    | _RECORDING
    | _TOP
    | _LAYOUT
    | {"property", "recording", "transfer_tax", "dtt", "dtt_exempt_reason", "transfer_value"}
    | {"property_address", "grantors", "grantees", "grantors_text", "grantees_text"}
)
# Digits on either side of the point; an amount of money has fewer.
_LONGEST_MONEY: Final = 20
_BODY: Final = ("order_id", "property_address", "parties", "data")


def read(deed_type: str, body: Any) -> Reading:
    """Raises Problem `validation_error`, with pointers into the body as it was sent."""
    translation = _Translation(body)
    order = {"deed_type": deed_type, **translation.order}
    try:
        read_order = reading.read(order)
    except Problem as problem:
        raise invalid([translation.error_back(error) for error in problem.errors]) from problem
    return replace(read_order, warnings=[*read_order.warnings, *translation.warnings])


class _Translation:
    """One body on its way, remembering where each value stood. Raises Problem for unknown names."""

    def __init__(self, body: Any) -> None:
        self.order: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.errors: list[FieldError] = []
        self.warnings: list[dict[str, str]] = []
        if not isinstance(body, dict):
            raise invalid([FieldError("", "invalid_type", "The body must be a JSON object.")])
        self._refuse_unknown(body, list(_BODY), "")
        if "order_id" in body:
            self._put("/order_id", body["order_id"], "/order_id")
        data = self._object(body, "data")
        self._refuse_unknown(data, DATA_FIELDS, "/data")
        data = {name: value if name == "metadata" else _filled(value) for name, value in _given(data)}
        self._data(data)
        self._parties(self._object(body, "parties"), data)
        if body.get("property_address", "") != "":
            self._put("/property/address", body["property_address"], "/property_address")
        if self.errors:
            raise invalid(self.errors)

    def error_back(self, error: FieldError) -> FieldError:
        """The error at the place in the v1 body that it speaks of."""
        pointer = error.pointer
        rest = ""
        while pointer:
            if pointer in self.sources:
                return replace(error, pointer=self.sources[pointer] + rest)
            pointer, _, last = pointer.rpartition("/")
            rest = f"/{last}{rest}"
        return replace(error, pointer=_DEFAULT_PLACES.get(error.pointer, f"/data{error.pointer}"))

    def _data(self, data: dict[str, Any]) -> None:
        for name, value in data.items():
            source = pointer_to("/data", name)
            if name in _PROPERTY:
                self._put(f"/property/{name}", value, source)
            elif name == "property_address":
                self._put("/property/address", value, source)
            elif name in _RECORDING:
                self._put(f"/recording/{name}", value, source)
            elif name in {"property", "recording"}:
                self._members(f"/{name}", value, source)
            elif name in {"dtt", "transfer_tax"}:
                self._transfer_tax(value, source)
            elif name == "transfer_value":
                self._put("/transfer_tax/transfer_value", _money(value), source)
            elif name == "dtt_exempt_reason":
                self._put("/transfer_tax/exempt", True, source)  # noqa: FBT003 - a JSON value
                self._put("/transfer_tax/exemption_reason", value, source)
            elif name in _TOP:
                self._put(f"/{name}", value, source)
            elif name in _LAYOUT and value is not None:
                self.warnings.append(reading.warning(source, "not_used", "The layout is the renderer's own."))

    def _transfer_tax(self, value: Any, source: str) -> None:
        if not isinstance(value, dict):
            self._put("/transfer_tax", value, source)
            return
        self._refuse_unknown(value, list(_DTT), source)
        self.sources["/transfer_tax"] = source
        for name, member in value.items():
            if name in _DTT:
                target = _DTT[name]
                kept = _money(member) if target in {"amount", "transfer_value"} else member
                self._put(f"/transfer_tax/{target}", kept, pointer_to(source, name))

    def _parties(self, parties: dict[str, Any], data: dict[str, Any]) -> None:
        self._refuse_unknown(parties, ["grantor", "grantee"], "/parties")
        for ours, theirs in (("grantors", "grantor"), ("grantees", "grantee")):
            places = (
                (parties, theirs, "/parties"),
                (data, ours, "/data"),
                (data, f"{ours}_text", "/data"),
            )
            for container, name, pointer in places:
                if container.get(name) is not None:
                    self._put_parties(f"/{ours}", container[name], f"{pointer}/{name}")

    def _put_parties(self, target: str, value: Any, source: str) -> None:
        parties = _party_list(value)
        self._put(target, parties, source)
        if self.sources.get(target) != source or not isinstance(parties, list):
            return
        # A party that was sent as text has no member `name` there.
        for index in range(len(parties)):
            if isinstance(value, str):
                self.sources[f"{target}/{index}"] = self.sources[f"{target}/{index}/name"] = source
            elif isinstance(value[index], str):
                self.sources[f"{target}/{index}/name"] = f"{source}/{index}"

    def _members(self, target: str, value: Any, source: str) -> None:
        if isinstance(value, dict):
            for name, member in value.items():
                self._put(pointer_to(target, name), member, pointer_to(source, name))
        else:
            self._put(target, value, source)

    def _object(self, body: dict[str, Any], name: str) -> dict[str, Any]:
        value = body.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.errors.append(FieldError(f"/{name}", "invalid_type", "It must be a JSON object."))
            return {}
        return value

    def _refuse_unknown(self, value: dict[str, Any], known: list[str], pointer: str) -> None:
        self.errors.extend(
            FieldError(
                pointer_to(pointer, name),
                "unknown_field",
                f"There is no field {name[:60]!r} here; {suggest(name, known)}",
            )
            for name in value
            if name not in known
        )

    def _put(self, target: str, value: Any, source: str) -> None:
        """Sets a member of the order. A value given in two places must be the same in both."""
        parent, _, name = target[1:].rpartition("/")
        container = self.order
        if parent:
            container = self.order.setdefault(parent, {})
            if not isinstance(container, dict):
                message = f"It is given as a whole at {self.sources[f'/{parent}']} already."
                self.errors.append(FieldError(source, "contradiction", message))
                return
        if name in container and container[name] != value:
            before = self.sources.get(target, "what is given by other names")
            message = f"It differs from {before}; send it once."
            self.errors.append(FieldError(source, "contradiction", message))
            return
        container[name] = value
        self.sources.setdefault(target, source)


_DEFAULT_PLACES: Final = {
    "/order_id": "/order_id",
    "/deed_type": "/deed_type",
    "/property": "/data",
    "/property/address": "/property_address",
    "/property/apn": "/data/apn",
    "/property/county": "/data/county",
    "/property/legal_description": "/data/legal_description",
    "/grantors": "/parties/grantor",
    "/grantees": "/parties/grantee",
}


def _given(members: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in members.items() if value != "")


def _filled(value: Any) -> Any:
    """Without the members of objects in it that are empty texts."""
    if isinstance(value, dict):
        return {name: _filled(member) for name, member in _given(value)}
    return value


def _party_list(value: Any) -> Any:
    """Text holds one party or several split by ";"; a list holds texts or v2's objects."""
    if isinstance(value, str):
        names = [name.strip() for name in value.split(";")]
        return [{"name": name} for name in names if name] or [{"name": value}]
    if isinstance(value, list):
        return [{"name": entry} if isinstance(entry, str) else entry for entry in value]
    return value


def _money(value: Any) -> Any:
    """The first version took numbers; they were read as Decimal, so nothing is rounded here.

    One that is no amount of money stays a number, and is refused as such: 1e2000000000 has twenty bytes,
    and two billion digits.
    """
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return value
    if isinstance(value, int):
        return str(value)
    exponent = value.as_tuple().exponent
    is_short = (
        isinstance(exponent, int) and exponent >= -_LONGEST_MONEY and value.adjusted() <= _LONGEST_MONEY
    )
    return f"{value:f}" if is_short else value
