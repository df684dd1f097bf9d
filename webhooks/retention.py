"""How long events, deliveries and inbound bodies are kept; every night removes what is past that.

Of what came in only the body goes: who sends the same event again after years is still told that it is
known. All of it happens in batches, each safe to repeat and beside another run.
"""

import datetime as dt
import time
from typing import Any, Final

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from keys.models import Partner
from webhooks import metrics
from webhooks.models import InboundEvent

log = structlog.get_logger(__name__)

BATCH: Final = 500
# A message is handed out again after 15 minutes; the next night goes on where this one ended.
_LONGEST_SECONDS: Final = 600

# Oldest first, by the index of a partner's events. An event goes once all its deliveries may go.
_OUTDATED: Final = """
    SELECT e.id FROM webhook_events e
    WHERE e.partner_id = %(partner)s AND e.livemode = %(livemode)s AND e.created_at < %(before)s
      AND NOT EXISTS (SELECT 1 FROM webhook_deliveries d
                      WHERE d.event_id = e.id AND (d.settled_at IS NULL OR d.settled_at >= %(before)s))
    ORDER BY e.created_at LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
"""
# Asked again: one that is to be sent once more since then stays, with its event.
_DELIVERIES: Final = """
    DELETE FROM webhook_deliveries WHERE event_id = ANY(%s) AND settled_at < %s RETURNING id
"""
_ATTEMPTS: Final = "DELETE FROM webhook_attempts WHERE delivery_id = ANY(%s)"
_EVENTS: Final = """
    DELETE FROM webhook_events e WHERE e.id = ANY(%s)
      AND NOT EXISTS (SELECT 1 FROM webhook_deliveries d WHERE d.event_id = e.id)
"""


def forget() -> None:
    """All that is past its retention, or as much of it as there is time for."""
    now, until = timezone.now(), time.monotonic() + _LONGEST_SECONDS
    forgotten = {"events": 0, "deliveries": 0, "attempts": 0, "inbound_bodies": 0}
    if settings.WEBHOOKS_KEPT_DAYS:
        before = now - dt.timedelta(days=settings.WEBHOOKS_KEPT_DAYS)
        for partner in Partner.objects.order_by("pk"):
            for livemode in (True, False):
                while time.monotonic() < until and (
                    gone := _forget_events(partner, livemode=livemode, before=before)
                ):
                    for name, count in gone.items():
                        forgotten[name] += count
    if settings.WEBHOOKS_INBOUND_BODIES_KEPT_DAYS:
        before = now - dt.timedelta(days=settings.WEBHOOKS_INBOUND_BODIES_KEPT_DAYS)
        while time.monotonic() < until and (emptied := _empty_bodies(before)):
            forgotten["inbound_bodies"] += emptied
    for name, count in forgotten.items():
        metrics.forgotten.labels(name).inc(count)
    if any(forgotten.values()):
        log.info("webhooks_forgotten", **forgotten)


@transaction.atomic
def _forget_events(partner: Partner, *, livemode: bool, before: dt.datetime) -> dict[str, int]:
    """One batch; empty when there was none."""
    wanted: dict[str, Any] = {"partner": partner.pk, "livemode": livemode, "before": before, "limit": BATCH}
    with connection.cursor() as cursor:
        cursor.execute(_OUTDATED, wanted)
        events = [row[0] for row in cursor.fetchall()]
        if not events:
            return {}
        cursor.execute(_DELIVERIES, [events, before])
        deliveries = [row[0] for row in cursor.fetchall()]
        cursor.execute(_ATTEMPTS, [deliveries])
        attempts = cursor.rowcount
        cursor.execute(_EVENTS, [events])
        return {"events": cursor.rowcount, "deliveries": len(deliveries), "attempts": attempts}


def _empty_bodies(before: dt.datetime) -> int:
    """One batch; how many."""
    outdated = InboundEvent.objects.outdated(before)
    oldest = list(outdated.order_by("settled_at").values_list("pk", flat=True)[:BATCH])
    # Asked again: one that staff have replayed since then needs its body.
    return outdated.filter(pk__in=oldest).empty()
