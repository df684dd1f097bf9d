"""Staff's part in inbound events: a correction and a replay, each with its entry in the audit trail."""

import hashlib
from typing import Final

from django.db import transaction

from keys import audit
from keys.audit import Actor
from webhooks import hints
from webhooks.models import InboundEvent

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


def replay(actor: Actor, event: InboundEvent, *, body: str, reason: str) -> bool:
    """Processes an event that needs attention once more, with `body` in place of what came.

    The bytes that were signed stay as they are. False in any other state.
    """
    # A browser sends line breaks as CR LF; JSON doesn't mind, but it is no correction.
    text = body.replace("\r\n", "\n")
    is_corrected = text.encode() != event.text and text.strip().encode() != event.text.strip()
    with transaction.atomic():
        is_replayed = event.replay(corrected_body=text if is_corrected else event.corrected_body)
        if is_replayed:
            audit.record(
                actor,
                "inbound_event.corrected" if is_corrected else "inbound_event.replayed",
                event,
                partner=event.source.partner,
                # The bodies hold people's names; the trail holds which they were.
                before={"body_sha256": hashlib.sha256(event.text).hexdigest()},
                after={"body_sha256": hashlib.sha256(text.encode()).hexdigest()} if is_corrected else None,
                reason=reason,
            )
            hints.hint_on_commit(hints.PROCESS)
    return is_replayed
