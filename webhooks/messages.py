"""The body of a message: the same bytes for the same event, whenever and how often it is sent."""

import datetime as dt
import json
from typing import Any

from webhooks.models import Event


def as_dict(event: Event) -> dict[str, Any]:
    """The event as a receiver and as the API show it."""
    return {
        "id": str(event.pk),
        "object": "event",
        "type": event.type,
        "livemode": event.livemode,
        "created_at": time(event.created_at),
        "data": event.data,
    }


def body_of(event: Event) -> bytes:
    return json.dumps(as_dict(event), separators=(",", ":"), ensure_ascii=False).encode()


def time(value: dt.datetime | None) -> str | None:
    return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z") if value else None
