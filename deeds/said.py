"""What the Main API says beside the PDF: its ids, its time, and why it refuses an order.

It is read from whatever stands before the Main API as well, so no shape of it may raise.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import requests

_LIMIT_REASON: Final = 2000
_LIMIT_ID: Final = 128
_SECONDS: Final = re.compile(r"(\d{1,6}(?:\.\d{1,9})?)\s*(ms)?")


@dataclass(frozen=True)
class Said:
    """What is known of the answer, for the attempt log: no fact of the order is in it."""

    status: int | None = None
    request_id: str = ""
    generation_seconds: float | None = None
    calls: int = 1

    @classmethod
    def by(cls, answer: requests.Response) -> "Said":
        return cls(
            status=answer.status_code,
            request_id=storable(answer.headers.get("X-Request-ID", ""))[:_LIMIT_ID],
            generation_seconds=_seconds(answer.headers.get("X-Generation-Time", "")),
        )


def detail(body: bytes) -> Any:
    """The `detail` of a 4xx, of text that can be stored; None when it says nothing readable."""
    try:
        return _storable(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def as_text(detail: Any) -> str:
    """In one line: a sentence as it is, a list entry by entry with the places that it names."""
    if isinstance(detail, list):
        detail = "; ".join(part for part in map(_entry, detail) if part)
    return "" if detail is None else str(detail)[:_LIMIT_REASON]


def _entry(entry: Any) -> str:
    if isinstance(entry, dict):
        return ": ".join(_parts(entry))
    return entry if isinstance(entry, str) else ""


def _parts(entry: dict[str, Any]) -> Iterator[str]:
    place, message = entry.get("loc"), entry.get("msg")
    if place:
        yield ".".join(map(str, place)) if isinstance(place, list) else str(place)
    if message:
        yield str(message)


def _seconds(text: str) -> float | None:
    match = _SECONDS.match(text)
    if match is None:
        return None
    return float(match[1]) / 1000 if match[2] else float(match[1])


def storable(text: str) -> str:
    """With a sign in place of what Postgres takes in no text: NUL, and halves of surrogate pairs."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\x00", "\ufffd")


def _storable(value: Any) -> Any:
    if isinstance(value, dict):
        return {storable(name): _storable(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_storable(member) for member in value]
    return storable(value) if isinstance(value, str) else value
