"""What is counted of orders, of making deeds, and of the Main API. Each thing is counted in one place."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from prometheus_client import Counter, Histogram

from deeds.catalog import DEED_TYPES
from partner_api.ops.metrics import LATENCY_BUCKETS, begin_at_zero

RENDERERS: Final = ("main_api", "sandbox")

ORDERS: Final = Counter(
    "partner_api_orders_total", "Orders accepted, by deed type and source.", ["deed_type", "source"]
)
DEEDS_SETTLED: Final = Counter(
    "partner_api_deeds_settled_total",
    "Deeds that were completed, failed or cancelled, by deed type and mode.",
    ["status", "deed_type", "mode"],
)
begin_at_zero(DEEDS_SETTLED, ("completed", "failed", "cancelled"), DEED_TYPES, ("live", "test"))
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
begin_at_zero(
    MAIN_API_CALLS,
    RENDERERS,
    (
        "ok",
        "main_api_busy",
        "main_api_rejected",
        "main_api_timeout",
        "main_api_unavailable",
        "invalid_pdf",
        "pdf_too_large",
    ),
)
MAIN_API_SECONDS: Final = Histogram(
    "partner_api_main_api_seconds",
    "Time of a single call to a renderer.",
    ["renderer"],
    buckets=LATENCY_BUCKETS,
)
begin_at_zero(MAIN_API_SECONDS, RENDERERS)
CIRCUIT_MOVES: Final = Counter(
    "partner_api_circuit_moves_total",
    "How often the circuit to a renderer opened or closed.",
    ["renderer", "to"],
)
begin_at_zero(CIRCUIT_MOVES, RENDERERS, ("open", "closed"))
STORAGE_ERRORS: Final = Counter(
    "partner_api_storage_errors_total", "PDFs that could not be stored or read.", ["step"]
)
begin_at_zero(STORAGE_ERRORS, ("store", "read"))
PDFS_CHECKED: Final = Counter(
    "partner_api_storage_checked_pdfs_total",
    "PDFs read back from the storage, by whether they were right, missing, another one or unreadable.",
    ["outcome"],
)
begin_at_zero(PDFS_CHECKED, ("right", "missing", "differs", "unreadable"))


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
