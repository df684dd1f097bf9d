"""What the Main API says against an order, in the partner's own terms: which of its fields is meant.

Also takes the order's facts out of such a text, for those who may read why but not what.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

# The first word that is in a sentence decides; they are the Main API's own.
_SENTENCES: Final = (
    ("grantor", "/grantors"),
    ("grantee", "/grantees"),
    ("legal description", "/property/legal_description"),
    ("county", "/property/county"),
    ("apn", "/property/apn"),
    ("city name", "/transfer_tax/city_name"),
    ("transfer tax", "/transfer_tax/amount"),
    ("transfer value", "/transfer_tax/transfer_value"),
    ("vesting", "/vesting"),
    ("execution date", "/execution_date"),
)
_FIELDS: Final = {
    "requested_by": "/recording/requested_by",
    "title_company": "/recording/title_company",
    "escrow_no": "/recording/escrow_no",
    "title_order_no": "/recording/title_order_no",
    "return_to": "/recording/return_to",
    "apn": "/property/apn",
    "county": "/property/county",
    "legal_description": "/property/legal_description",
    "property_address": "/property/address",
    "grantors_text": "/grantors",
    "grantees_text": "/grantees",
    "vesting": "/vesting",
    "dtt": "/transfer_tax",
    "dtt.is_exempt": "/transfer_tax/exempt",
    "transfer_value": "/transfer_tax/transfer_value",
    "dtt_exempt_reason": "/transfer_tax/exemption_reason",
    "covenants": "/covenants",
    "tax_sale_ref": "/tax_sale_ref",
    "execution_date": "/execution_date",
}
_SHORTEST_FACT: Final = 4
_LIMIT: Final = 500


def errors_of(detail: Any) -> list[dict[str, str]]:
    """`errors` of a failure: pointers into the order, or to the whole of it where no field is known."""
    if isinstance(detail, str):
        text = re.sub(r"^\s*validation failed:\s*", "", detail, flags=re.IGNORECASE)
        pairs = [(_pointer_of(part), part.strip()) for part in text.split(";") if part.strip()]
    elif isinstance(detail, list):
        pairs = [
            (_pointer_at(one.get("loc", [])), str(one.get("msg", "")))
            for one in detail
            if isinstance(one, dict)
        ]
    else:
        pairs = []
    return [
        {"pointer": pointer, "code": "refused_by_renderer", "message": message[:_LIMIT]}
        for pointer, message in pairs
    ]


def without_facts(text: str, order: dict[str, Any]) -> str:
    """The text with everything that stands in the order replaced by an ellipsis."""
    for fact in sorted(set(_texts(order)), key=len, reverse=True):
        text = re.sub(re.escape(fact), "…", text, flags=re.IGNORECASE)
    return text[:_LIMIT]


def _pointer_of(sentence: str) -> str:
    lowered = sentence.lower()
    return next((pointer for words, pointer in _SENTENCES if words in lowered), "")


def _pointer_at(location: Any) -> str:
    parts = _parts(location)
    if parts[:1] == ["body"]:
        del parts[0]
    name = ".".join(parts)
    if name in _FIELDS:
        return _FIELDS[name]
    if parts and parts[0] in _FIELDS:
        return "/".join([_FIELDS[parts[0]], *parts[1:]])
    return ""


def _parts(location: Any) -> list[str]:
    return [str(part) for part in location] if isinstance(location, list) else []


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for member in value.values():
            yield from _texts(member)
    elif isinstance(value, list):
        for member in value:
            yield from _texts(member)
    elif isinstance(value, str) and len(value.strip()) >= _SHORTEST_FACT:
        yield value.strip()
