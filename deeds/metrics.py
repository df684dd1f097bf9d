"""What is counted of making deeds."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from partner_api.ops.metrics import LATENCY_BUCKETS

ATTEMPTS: Final = Counter(
    "partner_api_deed_attempts_total",
    "Attempts to make a deed, by where it is rendered and how it ended.",
    ["renderer", "outcome"],
)
RENDER_SECONDS: Final = Histogram(
    "partner_api_render_seconds",
    "How long a renderer took for a deed, repetitions within seconds included.",
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
PDFS_CHECKED: Final = Counter(
    "partner_api_storage_checked_pdfs_total",
    "PDFs read back from the storage, by whether they were right, missing or another one.",
    ["outcome"],
)
