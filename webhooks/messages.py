"""The body of a message: the same bytes for the same event, whenever and how often it is sent."""

import json
from typing import Any

from partner_api.http.times import rfc3339
from webhooks.models import Event


def as_dict(event: Event) -> dict[str, Any]:
    """The event as a receiver and as the API show it."""
    return {
        "id": str(event.pk),
        "object": "event",
        "type": event.type,
        "livemode": event.livemode,
        "created_at": rfc3339(event.created_at),
        "data": event.data,
    }


def body_of(event: Event) -> bytes:
    return json.dumps(as_dict(event), separators=(",", ":"), ensure_ascii=False).encode()
