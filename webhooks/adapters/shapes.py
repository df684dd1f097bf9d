"""The payload that the systems send: the first version's members, with v2's beside or instead of them.

It is read as the first version's order, whose `data` takes the fields of v2, so that there is one
reading of both and one set of checks.
"""

from typing import Any, Final

from deeds import v1
from deeds.catalog import DEED_TYPES
from deeds.reading import Reading
from partner_api.http.problems import FieldError, invalid

_ENVELOPE: Final = {"order_id", "deed_type", "property_address", "parties", "metadata"}


def read(body: Any) -> Reading:
    """Raises Problem `validation_error`, with pointers into the order as v1 writes it."""
    if not isinstance(body, dict):
        raise invalid([FieldError("", "invalid_type", "The body must be a JSON object: an order.")])
    metadata = body.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise invalid([FieldError("/metadata", "invalid_type", "It must be a JSON object.")])
    # What the order needs and v1 had no member for came in `metadata`; the rest is the sender's own.
    data = {name: value for name, value in metadata.items() if name in v1.DATA_FIELDS}
    data |= {name: value for name, value in body.items() if name not in _ENVELOPE}
    own = {name: _text(value) for name, value in metadata.items() if name not in v1.DATA_FIELDS}
    if own:
        data["metadata"] = own
    order = {name: body[name] for name in ("order_id", "property_address", "parties") if name in body}
    return v1.read(_deed_type(body.get("deed_type")), {**order, "data": data})


def _deed_type(name: Any) -> Any:
    """`grant`, also as "Grant Deed" or `grant_deed`. What is none of ours goes on, to be refused."""
    if not isinstance(name, str):
        return name
    plain = name.strip().lower().replace("-", "_").replace(" ", "_").removesuffix("_deed")
    plain = {"interspousal_transfer": "interspousal", "quit_claim": "quitclaim"}.get(plain, plain)
    return plain if plain in DEED_TYPES else name


def _text(value: Any) -> Any:
    """An order's metadata are texts."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str | dict | list) else str(value)
