"""What the rows say of work that is not done: for Prometheus, and for staff when it grows."""

import datetime as dt
from collections.abc import Iterator
from typing import Final

from django.conf import settings
from django.db.models import Min, QuerySet
from django.utils import timezone
from prometheus_client.core import GaugeMetricFamily, Metric

from deeds.models import Deed, StorageFinding
from partner_api.ops.watching import Finding

_NOT_SETTLED: Final = (Deed.Status.QUEUED, Deed.Status.RENDERING)


def backlog() -> Iterator[Metric]:
    """By the partial indexes of their statuses, so that history costs nothing."""
    under_way = GaugeMetricFamily(
        "partner_api_deeds_under_way", "Deeds that are queued or being rendered.", labels=["status"]
    )
    for status in _NOT_SETTLED:
        under_way.add_metric([status], of_status(status).count())
    yield under_way
    now = timezone.now()
    # Deeds that wait for their next attempt are told apart from those that no worker came to.
    due = Deed.objects.claimable(now).aggregate(at=Min("next_attempt_at"))["at"]
    yield GaugeMetricFamily(
        "partner_api_oldest_due_deed_age_seconds",
        "For how long the oldest deed that could be made has been due.",
        value=_seconds(now, due),
    )
    oldest = of_status(Deed.Status.QUEUED).aggregate(at=Min("created_at"))["at"]
    yield GaugeMetricFamily(
        "partner_api_oldest_queued_order_age_seconds",
        "How long ago the oldest queued order was accepted, whatever it waits for.",
        value=_seconds(now, oldest),
    )


def of_status(status: str) -> QuerySet[Deed]:
    """One status, for which there is a partial index: no such index holds several."""
    return Deed.objects.filter(status=status)


def main_api_failing() -> Iterator[Finding]:
    """A watch: live deeds that were tried and wait for another attempt."""
    waiting = Deed.objects.filter(status=Deed.Status.QUEUED, livemode=True, attempts__gt=0).count()
    if waiting >= settings.WATCH_WAITING_DEEDS:
        # Without the number, which changes while the finding stays the same one.
        yield Finding("", "live deeds could not be rendered and wait for another attempt")


def pdfs_lost() -> Iterator[Finding]:
    """A watch: PDFs that are not in the storage as they were stored. One incident a day that found some."""
    still_open = StorageFinding.objects.filter(resolved_at=None).order_by()
    for day in still_open.values_list("found_at__date", flat=True).distinct():
        where = f"{settings.PUBLIC_BASE_URL}/admin/deeds/storagefinding/"
        # Without the number, which changes while the finding stays the same one.
        yield Finding(str(day), f"PDFs were found missing or damaged on {day}; which ones: {where}")


def _seconds(now: dt.datetime, moment: dt.datetime | None) -> float:
    return 0.0 if moment is None else max(0.0, (now - moment).total_seconds())
