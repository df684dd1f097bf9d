"""Reads an order's body: the errors in the partner's own terms, and the warnings on what is allowed but odd.

This is where a blank deed is stopped. The Main API would render four of the five types with facts
missing and call it a success.
"""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from deeds import catalog, order
from deeds.catalog import DEED_TYPES, DeedType
from partner_api.http.parsing import NotText, pointer_to
from partner_api.http.problems import FieldError, invalid
from partner_api.http.suggestions import suggest


@dataclass(frozen=True)
class Reading:
    """A body that is a valid order."""

    deed_type: DeedType
    order: order.Order
    given: dict[str, Any]
    warnings: list[dict[str, str]]


# The members of each object of an order, to suggest a name for one that is unknown.
_MEMBERS: Final[dict[str, type[BaseModel]]] = {
    "property": order.Property,
    "grantors": order.Party,
    "grantees": order.Party,
    "transfer_tax": order.CityTransfer,
    "recording": order.Recording,
    "return_to": order.ReturnTo,
}
_MEANINGS: Final = {
    "/order_id": "your number of the order",
    "/property": "what is conveyed",
    "/property/county": "the county where the property lies",
    "/property/apn": "the assessor's parcel number",
    "/property/legal_description": "the legal description",
    "/grantors": "at least one grantor",
    "/grantees": "at least one grantee",
    "/vesting": "how the grantees hold title",
    "/transfer_tax": "the documentary transfer tax: exempt with a reason, or the tax declared",
    "/transfer_tax/exempt": "whether the transfer is exempt: true or false",
    "/transfer_tax/exemption_reason": "the reason for the exemption",
    "/transfer_tax/amount": "the tax declared, or else exempt: true with a reason",
    "/transfer_tax/basis": 'what the tax was computed on: "full_value" or "less_liens"',
    "/transfer_tax/area_type": 'where the property lies: "city" or "unincorporated"',
    "/transfer_tax/city_name": "the name of the city",
    "/tax_sale_ref": "the reference of the tax sale",
}

_MESSAGES: Final = {
    "literal_error": ("invalid_choice", "It must be {expected}."),
    "string_type": ("invalid_type", "It must be text, in quotes."),
    "model_type": ("invalid_type", "It must be a JSON object."),
    "dict_type": ("invalid_type", "It must be a JSON object."),
    "list_type": ("invalid_type", "It must be a list."),
    "none_required": ("contradiction", "A transfer that is not exempt has no reason for it."),
    "string_too_short": ("blank", "It is blank; leave it out or fill it in."),
    "string_too_long": ("too_long", "It has more than {max_length:,} characters."),
    "too_long": ("too_many", "It has more than {max_length:,} entries."),
    "uuid_parsing": ("invalid_id", "It must be the id of a deed, a UUID."),
    "uuid_type": ("invalid_id", "It must be the id of a deed, a UUID."),
}


def read(body: Any) -> Reading:
    """Raises Problem `validation_error` that lists all that is wrong."""
    if isinstance(body, NotText):
        raise invalid(list(body.errors))
    if not isinstance(body, dict):
        raise invalid([FieldError("", "invalid_type", "The body must be a JSON object: an order.")])
    deed_type = _deed_type(body)
    try:
        read_order = deed_type.order_class.model_validate(body)
    except ValidationError as error:
        raise invalid(_field_errors(error, body, deed_type)) from error
    return Reading(deed_type, read_order, body, list(_warnings(deed_type, read_order)))


def _deed_type(body: dict[str, Any]) -> DeedType:
    slug = body.get("deed_type")
    if isinstance(slug, str) and slug in DEED_TYPES:
        return DEED_TYPES[slug]
    known = ", ".join(DEED_TYPES)
    if slug is None:
        error = FieldError("/deed_type", "required", f"Say which deed is ordered: {known}.")
    elif not isinstance(slug, str):
        error = FieldError("/deed_type", "invalid_type", f"It must be text, one of {known}.")
    else:
        near = catalog.nearest(slug)
        hint = f" Did you mean {near!r}?" if near else ""
        message = f"There is no deed type {slug[:60]!r}; there are {known}.{hint}"
        error = FieldError("/deed_type", "unknown_deed_type", message)
    raise invalid([error])


def _field_errors(error: ValidationError, body: dict[str, Any], deed_type: DeedType) -> list[FieldError]:
    errors = [_field_error(detail, deed_type) for detail in error.errors(include_url=False)]
    pointers = {one.pointer for one in errors}
    if "/transfer_tax/area_type" in pointers:
        # Whether a city must be named is not known before the area is.
        errors = [one for one in errors if (one.pointer, one.code) != ("/transfer_tax/city_name", "required")]
    return errors


def _field_error(detail: ErrorDetails, deed_type: DeedType) -> FieldError:
    location = [part for part in detail["loc"] if part not in (*order.TRANSFER_TAGS, "[key]")]
    pointer = ""
    for part in location:
        pointer = pointer_to(pointer, part)
    match detail["type"]:
        case "missing":
            meaning = _MEANINGS.get(pointer)
            message = f"It is required{f': {meaning}' if meaning else ''}."
            return FieldError(pointer, "required", message)
        case "too_short":
            meaning = _MEANINGS.get(pointer, "at least one entry")
            return FieldError(pointer, "required", f"It is empty; it needs {meaning}.")
        case "extra_forbidden":
            name = str(location[-1])
            known = _members_beside(location, deed_type)
            message = f"There is no field {name[:60]!r} here; {suggest(name, known)}"
            return FieldError(pointer, "unknown_field", message)
        case "string_pattern_mismatch":
            return FieldError(pointer, "invalid_format", _format_of(pointer))
        case kind if kind in _MESSAGES:
            code, message = _MESSAGES[kind]
            return FieldError(pointer, code, message.format_map(detail.get("ctx", {})))
    # One of our own, from deeds.fields.
    return FieldError(pointer, detail["type"], detail["msg"])


def _format_of(pointer: str) -> str:
    if pointer.endswith("/state"):
        return 'It must be two capital letters, such as "CA".'
    if pointer.endswith("/zip"):
        return 'It must be a ZIP code: "91750" or "91750-1234".'
    return "A key has 1 to 40 letters, digits, '_', '.' and '-' only."


def _members_beside(location: list[int | str], deed_type: DeedType) -> list[str]:
    parents = [part for part in location[:-1] if isinstance(part, str)]
    model = _MEMBERS[parents[-1]] if parents else deed_type.order_class
    return list(model.model_fields)


def _warnings(deed_type: DeedType, read_order: order.Order) -> list[dict[str, str]]:
    warnings = [
        warning(f"/{path}", "not_used", f"A {deed_type.title.lower()} does not show this.")
        for path in sorted(deed_type.unused)
        if _at(read_order, path) is not None
    ]
    tax = read_order.transfer_tax
    is_checkable = isinstance(tax, order.UnincorporatedTransfer) and tax.basis == "full_value"
    if tax is not None and is_checkable and tax.amount and tax.transfer_value:
        # Less liens, the tax is on a value that the order does not state.
        county_tax = statutory_county_tax(Decimal(tax.transfer_value))
        if Decimal(tax.amount) != county_tax and "transfer_tax" not in deed_type.unused:
            message = (
                f"The county's tax on {tax.transfer_value} is {county_tax} by Revenue and Taxation "
                f"Code section 11911; {tax.amount} is declared and will stand on the deed."
            )
            warnings.append(warning("/transfer_tax/amount", "differs_from_statutory_tax", message))
    return warnings


def _at(read_order: order.Order, path: str) -> Any:
    """The member at a path such as `transfer_tax/amount`; None where it, or what it stands in, is absent."""
    value: Any = read_order
    for name in path.split("/"):
        value = getattr(value, name, None)
    return value


def warning(pointer: str, code: str, message: str) -> dict[str, str]:
    return {"pointer": pointer, "code": code, "message": message}


def statutory_county_tax(value: Decimal) -> Decimal:
    """Documentary transfer tax in dollars on a value in dollars.

    $0.55 for each $500 of value or part of it, once the value is above $100: California Revenue and
    Taxation Code section 11911(a).
    """
    if value <= Decimal(100):
        return Decimal("0.00")
    steps = (value / Decimal(500)).to_integral_value(rounding=ROUND_CEILING)
    return steps * Decimal("0.55")
