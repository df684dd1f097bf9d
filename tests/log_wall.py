"""What may never stand in a log, whoever wrote the line: secrets by their form, and an order's people.

Used after each test that ran real processes, on all that they wrote.
"""

import re
from collections.abc import Iterable
from typing import Any

from deeds.catalog import DEED_TYPES

# In a JSON line the end of the line before is a backslash and a letter.
_EDGE = r"(?:\b|(?<=\\[nrtbf]))"
SECRETS = re.compile(
    r"dp_(?:live|test)_[0-9A-Za-z]{4,16}_[0-9A-Za-z]{20,}"
    rf"|{_EDGE}"
    r"(?:sk|rk)_(?:live|test)_[0-9A-Za-z]{8,}"
    rf"|{_EDGE}"
    r"whsec_[0-9A-Za-z+/=]{8,}"
    r"|(?i:bearer) +(?!\[redacted\]|token|key|<)[0-9A-Za-z._~+/-]{16,}"
    r"|[?&]signature=(?!\[redacted\])[^\s&\"']{8,}"
    r"|://[^\s:/@\"]*:(?!\[redacted\]|\*)[^\s@/\"]+@"
)
_PERSONAL = ("apn", "legal_description", "address", "name", "company", "address1")


def leaks(text: str, *, also: Iterable[str] = ()) -> list[str]:
    """The lines of `text` that hold a secret, a fact of the examples' people, or one of `also`."""
    forbidden = {*people(), *also}
    return [
        line for line in text.splitlines() if SECRETS.search(line) or any(fact in line for fact in forbidden)
    ]


def people() -> set[str]:
    """Names, parcels and addresses of the catalog's examples, from which tests make their orders."""
    facts: set[str] = set()
    for deed_type in DEED_TYPES.values():
        _walk(deed_type.example, facts)
    return facts


def _walk(value: Any, facts: set[str]) -> None:
    if isinstance(value, dict):
        for name, member in value.items():
            # A partner's own name stands beside a person's, and is no secret.
            if name in _PERSONAL and isinstance(member, str) and len(member) > 5 and "Title" not in member:
                facts.add(member)
            _walk(member, facts)
    elif isinstance(value, list):
        for member in value:
            _walk(member, facts)
