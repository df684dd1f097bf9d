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
    """Makes this month's partition and those of the next three; drops what is past its retention.

    A month between that was missed, because this did not run, is made as well.
    """
    current = Month.of(now or timezone.now())
    last_kept = current.plus(-settings.USAGE_RETENTION_MONTHS)
    oldest = min([current, *partitions.existing()])
    first, end = max(oldest, last_kept), current.plus(AHEAD + 1)
    try:
        made = partitions.make(_months(first, end))
        dropped = partitions.drop_before(last_kept)
    finally:
        # Most of all when the above failed. Rows of months before the log's first, or far ahead, are those of
        # a wrong clock: they have no partition to wait for, and go when their month is past its retention.
        stray = partitions.rows_without_partition(first, end)
        metrics.usage_rows_without_partition.set(stray)
        if stray:
            log.error("usage_rows_without_partition", rows=stray)
    if made or dropped:
        log.info("usage_partitions", made=[one.table for one in made], dropped=[one.table for one in dropped])


def forget_stripe_events(now: dt.datetime | None = None) -> int:
    """Removes those that were acted on or ignored; how many. What waits is kept, however old."""
    before = (now or timezone.now()) - dt.timedelta(days=settings.STRIPE_EVENT_RETENTION_DAYS)
    old = StripeEvent.objects.filter(received_at__lt=before).exclude(state=StripeEvent.State.WAITING)
    removed, _ = old.delete()
    if removed:
        log.info("stripe_events_forgotten", events=removed)
    return removed


def _months(first: Month, end: Month) -> list[Month]:
    months = []
    while first < end:
        months.append(first)
        first = first.plus(1)
    return months
