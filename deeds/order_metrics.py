"""What is counted of orders and of the Main API."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import Counter, Histogram

from partner_api.ops.metrics import LATENCY_BUCKETS

ORDERS = Counter(
    "partner_api_orders_total", "Orders accepted, by deed type and source.", ["deed_type", "source"]
)
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
STORAGE_ERRORS = Counter(
    "partner_api_storage_errors_total", "PDFs that could not be stored or read.", ["step"]
)


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


def count_settled(deed: Any, **_: Any) -> None:
    """A receiver of `deed_settled`. A transaction that is undone afterwards was counted all the same."""
    DEEDS_SETTLED.labels(deed.status, deed.deed_type, "live" if deed.livemode else "test").inc()
    if deed.completed_at is not None:
        DEED_SECONDS.observe(max(0.0, (deed.completed_at - deed.created_at).total_seconds()))
