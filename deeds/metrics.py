"""What is counted of orders, of making deeds, and of the Main API. Each thing is counted in one place."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram

from partner_api.ops.metrics import LATENCY_BUCKETS

ORDERS: Final = Counter(
    "partner_api_orders_total", "Orders accepted, by deed type and source.", ["deed_type", "source"]
)
DEEDS_SETTLED: Final = Counter(
    "partner_api_deeds_settled_total",
    "Deeds that were completed, failed or cancelled, by deed type and mode.",
    ["status", "deed_type", "mode"],
)
DEED_SECONDS: Final = Histogram(
    "partner_api_deed_seconds",
    "From the order to the completed deed.",
    buckets=(0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0),
)
DEEDS_PUT_BACK: Final = Counter(
    "partner_api_deeds_put_back_total", "Attempts that ended with another one later, by code.", ["code"]
)
MAIN_API_CALLS: Final = Counter(
    "partner_api_main_api_calls_total",
    "Single calls to a renderer (main_api or sandbox), by outcome: ok, or the code of what was wrong.",
    ["renderer", "outcome"],
)
MAIN_API_SECONDS: Final = Histogram(
    "partner_api_main_api_seconds",
    "Time of a single call to a renderer.",
    ["renderer"],
    buckets=LATENCY_BUCKETS,
)
CIRCUIT_MOVES: Final = Counter(
    "partner_api_circuit_moves_total",
    "How often the circuit to a renderer opened or closed.",
    ["renderer", "to"],
)
CIRCUIT_OPEN: Final = Gauge(
    "partner_api_circuit_open",
    "1 while the circuit to a renderer is open, as seen by the last readiness check.",
    ["renderer"],
    multiprocess_mode="mostrecent",
)
STORAGE_ERRORS: Final = Counter(
    "partner_api_storage_errors_total", "PDFs that could not be stored or read.", ["step"]
)
PDFS_CHECKED: Final = Counter(
    "partner_api_storage_checked_pdfs_total",
    "PDFs read back from the storage, by whether they were right, missing or another one.",
    ["outcome"],
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
