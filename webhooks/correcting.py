"""Staff's part in inbound events: a correction and a replay, each with its entry in the audit trail."""

import hashlib
import uuid
from typing import Final

from django.db import transaction

from keys import audit
from keys.audit import Actor
from webhooks import hints
from webhooks.models import InboundEvent

# What one request replays: each has its entry in the audit trail.
MANY: Final = 500
# What is not UTF-8 comes from Windows, most likely; the last reads any bytes.
_ENCODINGS: Final = ("utf-8", "cp1252", "latin-1")


def readable(content: bytes) -> tuple[str, str]:
    """A body as text to be corrected, and by which encoding it was read."""
    for encoding in _ENCODINGS:
        try:
            return content.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    raise AssertionError(_ENCODINGS)


def replay(actor: Actor, event: InboundEvent, *, body: str | None, reason: str) -> bool:
    """Processes an event that needs attention once more, with `body` in place of what came, if given.

    The bytes that were signed stay as they are. False in any other state.
    """
    # A browser sends line breaks as CR LF; JSON doesn't mind, but it is no correction.
    text = None if body is None else body.replace("\r\n", "\n")
    is_corrected = (
        text is not None and text.encode() != event.text and text.strip().encode() != event.text.strip()
    )
    with transaction.atomic():
        is_replayed = event.replay(corrected_body=text if text and is_corrected else event.corrected_body)
        if is_replayed:
            audit.record(
                actor,
                "inbound_event.corrected" if is_corrected else "inbound_event.replayed",
                event,
                partner=event.source.partner,
                # The bodies hold people's names; the trail holds which they were.
                before={"body_sha256": hashlib.sha256(event.text).hexdigest()},
                after={"body_sha256": hashlib.sha256((text or "").encode()).hexdigest()}
                if is_corrected
                else None,
                reason=reason,
            )
            hints.hint_on_commit(hints.PROCESS)
    return is_replayed


def replay_all(actor: Actor, source_id: uuid.UUID, *, code: str, reason: str) -> int:
    """As they are, the oldest MANY of a source that were set aside for one reason; how many."""
    events = (
        InboundEvent.objects.set_aside_for(code).filter(source=source_id).select_related("source__partner")
    )
    return sum(replay(actor, event, body=None, reason=reason) for event in events.order_by("id")[:MANY])
