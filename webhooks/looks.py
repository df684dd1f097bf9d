"""What the rows say of accepted orders that are not made: for Prometheus, and for staff."""

import datetime as dt
from collections.abc import Iterator
from typing import Final

from django.db.models import Min, Q
from django.utils import timezone
from prometheus_client.core import GaugeMetricFamily, Metric

from partner_api.ops.watching import Finding
from webhooks.models import InboundEvent, Source

# Orders are made within seconds.
_LONG: Final = dt.timedelta(hours=1)
# What was set aside is told of each day anew, and not for ever: an event may be worth no correction.
_TOLD_FOR: Final = dt.timedelta(days=7)
_UNDONE: Final = (InboundEvent.Status.RECEIVED, InboundEvent.Status.PROCESSING)


def not_made() -> Iterator[Metric]:
    """By the indexes of those that wait and of the states, so that history costs nothing."""
    yield GaugeMetricFamily(
        "partner_api_webhook_inbound_needs_attention",
        "Inbound events that were set aside for staff.",
        value=InboundEvent.objects.filter(status=InboundEvent.Status.NEEDS_ATTENTION).count(),
    )
    oldest = InboundEvent.objects.filter(status__in=_UNDONE).aggregate(at=Min("received_at"))["at"]
    yield GaugeMetricFamily(
        "partner_api_webhook_inbound_oldest_waiting_seconds",
        "Age of the oldest inbound event that is no deed yet and was not set aside; 0 without one.",
        value=(timezone.now() - oldest).total_seconds() if oldest else 0.0,
    )


def inbound_needs_attention() -> Iterator[Finding]:
    """A watch: by source, the days on which events were set aside, and waiting for more than an hour."""
    now = timezone.now()
    aside = Q(status=InboundEvent.Status.NEEDS_ATTENTION, settled_at__gte=now - _TOLD_FOR)
    days = InboundEvent.objects.filter(aside).values_list("source", "settled_at__date").distinct()
    late = InboundEvent.objects.filter(status__in=_UNDONE, received_at__lte=now - _LONG)
    oldest = late.order_by("source", "received_at").distinct("source")
    reasons = dict(oldest.values_list("source", "waits_for"))
    sources = Source.objects.in_bulk([*(source for source, _ in days), *reasons])
    for source_id, day in days:
        yield Finding(
            f"{source_id} {day}",
            f"orders of {_named(sources[source_id])} were set aside on {day}: each waits for a person",
        )
    for source_id, waits_for in reasons.items():
        why = f" ({waits_for})" if waits_for else ""
        yield Finding(
            f"{source_id} late",
            f"orders of {_named(sources[source_id])} have waited for more than an hour{why}",
        )


def _named(source: Source) -> str:
    return f"the source {source.pk} ({source.system}, partner {source.partner_id})"
