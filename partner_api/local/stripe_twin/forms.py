"""Stripe's form encoding, `items[0][price]=…`, as nested values."""

from typing import Any
from urllib.parse import parse_qsl


def decode(text: str) -> dict[str, Any]:
    """Nested dicts; members with the keys 0, 1, … become a list. All leaves are text."""
    # In an address the SDK escapes the brackets.
    if "[" not in text and "%5B" not in text.upper():
        return dict(parse_qsl(text, keep_blank_values=True))
    root: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        first, *rest = name.replace("]", "").split("[")
        place, key = root, first
        for part in rest:
            place = place.setdefault(key, {})
            key = part or str(len(place))
        place[key] = value
    return {name: _lists(value) for name, value in root.items()}


def _lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and all(key.isdigit() for key in value):
        return [_lists(value[key]) for key in sorted(value, key=int)]
    return {key: _lists(member) for key, member in value.items()}


def truth(text: Any) -> bool:
    return str(text).lower() == "true"
