"""What is counted of orders and of the Main API, and what the rows say of the backlog."""

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.conf import settings
from django.db.models import Count, Min
from django.utils import timezone
from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from deeds.models import Deed
from partner_api.ops.metrics import LATENCY_BUCKETS
from partner_api.ops.watching import Finding

ORDERS = Counter("partner_api_orders_total", "Orders accepted, by deed type and source.", ["deed_type", "source"])
DEEDS_SETTLED = Counter(
    "partner_api_deeds_settled_total",
    "Deeds that were completed, failed or cancelled, by deed type and mode.",
    ["status", "deed_type", "mode"],
)
DEED_SECONDS = Histogram(
    "partner_api_deed_seconds",
    "From the order to the completed deed.",
    buckets=(0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0),
)
MAIN_API_CALLS = Counter(
    "partner_api_main_api_calls_total",
    "Single calls to a renderer (main_api or sandbox), by outcome: ok, or the code of what was wrong.",
    ["renderer", "outcome"],
)
MAIN_API_SECONDS = Histogram(
    "partner_api_main_api_seconds",
    "Time of a single call to a renderer.",
    ["renderer"],
    buckets=LATENCY_BUCKETS,
)
DEEDS_PUT_BACK = Counter(
    "partner_api_deeds_put_back_total", "Attempts that ended with another one later, by code.", ["code"]
)
STORAGE_ERRORS = Counter("partner_api_storage_errors_total", "PDFs that could not be stored or read.", ["step"])

_NOT_SETTLED: Final = (Deed.Status.QUEUED, Deed.Status.RENDERING)


@contextmanager
def one_call(renderer: str) -> Iterator[None]:
    """Around one call to a renderer: its time and its outcome."""
    with MAIN_API_SECONDS.labels(renderer).time():
        try:
            yield
        except Exception as error:
            MAIN_API_CALLS.labels(renderer, getattr(error, "code", "main_api_unavailable")).inc()
            raise
    MAIN_API_CALLS.labels(renderer, "ok").inc()


def count_settled(deed: Deed, **_: Any) -> None:
    """A receiver of `deed_settled`. A transaction that is undone afterwards was counted all the same."""
    DEEDS_SETTLED.labels(deed.status, deed.deed_type, "live" if deed.livemode else "test").inc()
    if deed.completed_at is not None:
        DEED_SECONDS.observe(max(0.0, (deed.completed_at - deed.created_at).total_seconds()))


def backlog() -> Iterator[Metric]:
    """By the two partial indexes, so that history costs nothing."""
    under_way = GaugeMetricFamily(
        "partner_api_deeds_under_way", "Deeds that are queued or being rendered.", labels=["status"]
    )
    rows = Deed.objects.filter(status__in=_NOT_SETTLED).values("status").annotate(n=Count("pk"))
    counts = {row["status"]: row["n"] for row in rows}
    for status in _NOT_SETTLED:
        under_way.add_metric([status], counts.get(status, 0))
    yield under_way
    now = timezone.now()
    # Deeds that wait for their next attempt are told apart from those that no worker came to.
    due = Deed.objects.claimable(now).aggregate(at=Min("next_attempt_at"))["at"]
    yield GaugeMetricFamily(
        "partner_api_oldest_due_deed_age_seconds",
        "For how long the oldest deed that could be made has been due.",
        value=_seconds(now, due),
    )
    oldest = Deed.objects.filter(status=Deed.Status.QUEUED).aggregate(at=Min("created_at"))["at"]
    yield GaugeMetricFamily(
        "partner_api_oldest_queued_order_age_seconds",
        "How long ago the oldest queued order was accepted, whatever it waits for.",
        value=_seconds(now, oldest),
    )


def main_api_failing() -> Iterator[Finding]:
    """A watch: live deeds that were tried and wait for another attempt."""
    waiting = Deed.objects.filter(status=Deed.Status.QUEUED, livemode=True, attempts__gt=0).count()
    if waiting >= settings.WATCH_WAITING_DEEDS:
        # Without the number, which changes while the finding stays the same one.
        yield Finding("", "live deeds could not be rendered and wait for another attempt")


def _seconds(now: dt.datetime, moment: dt.datetime | None) -> float:
    return 0.0 if moment is None else max(0.0, (now - moment).total_seconds())
