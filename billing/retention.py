"""Which months of the request log there are: some ahead of now, and as many behind as are kept.

Rollups are kept for good: they are small, and all that is left of a month that was dropped. Stripe's
webhooks name people; they are removed long after Stripe sends the last of them again.
"""

import datetime as dt
from typing import Final

import structlog
from django.conf import settings
from django.utils import timezone

from billing import metrics, partitions
from billing.models import StripeEvent
from billing.partitions import Month

log = structlog.get_logger(__name__)

AHEAD: Final = 3


def keep(now: dt.datetime | None = None) -> None:
    """Makes this month's partition and those of the next three; drops what is past its retention."""
    current = Month.of(now or timezone.now())
    made = partitions.make([current.plus(months) for months in range(AHEAD + 1)])
    dropped = partitions.drop_before(current.plus(-settings.USAGE_RETENTION_MONTHS))
    stray = partitions.rows_without_partition()
    metrics.usage_rows_without_partition.set(stray)
    if made or dropped:
        log.info("usage_partitions", made=[one.table for one in made], dropped=[one.table for one in dropped])
    if stray:
        # Rows of a month that is neither kept nor near: a clock was wrong.
        log.error("usage_rows_without_partition", rows=stray)


def forget_stripe_events(now: dt.datetime | None = None) -> int:
    """Removes those that were acted on or ignored; how many. What waits is kept, however old."""
    before = (now or timezone.now()) - dt.timedelta(days=settings.STRIPE_EVENT_RETENTION_DAYS)
    old = StripeEvent.objects.filter(received_at__lt=before).exclude(state=StripeEvent.State.WAITING)
    removed, _ = old.delete()
    if removed:
        log.info("stripe_events_forgotten", events=removed)
    return removed
