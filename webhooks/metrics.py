"""What is counted of webhooks, and the figure that says whether deliveries keep up."""

from collections.abc import Iterator
from typing import Final

from django.utils import timezone
from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from partner_api.ops.metrics import LATENCY_BUCKETS, begin_at_zero
from webhooks.models import Delivery
from webhooks.sending import Outcome

# From here on a request counts as slow, whatever came of it.
SLOW_MS: Final = 5000

attempts = Counter(
    "partner_api_webhook_attempts_total",
    "Requests to partners' webhook endpoints, by outcome.",
    ["outcome"],
)
begin_at_zero(
    attempts,
    (
        "received",
        "lease_lost",
        "3xx",
        "4xx",
        "5xx",
        "timeout",
        "dns_timeout",
        "name_not_resolved",
        "address_refused",
        "certificate_invalid",
        "tls_failed",
        "connection_refused",
        "connection_failed",
        "connection_closed",
        "headers_too_large",
        "answer_invalid",
    ),
)
latency = Histogram(
    "partner_api_webhook_attempt_seconds",
    "How long partners' webhook endpoints take to answer.",
    buckets=LATENCY_BUCKETS,
)
inbound = Counter(
    "partner_api_webhook_inbound_total",
    "Inbound webhook requests, by system and result.",
    ["system", "result"],
)
forgotten = Counter(
    "partner_api_webhook_forgotten_total",
    "Webhook rows removed, and inbound bodies emptied, after their retention.",
    ["what"],
)


def count(outcome: Outcome, *, is_ours: bool) -> None:
    """One attempt. One whose lease was lost is counted apart: it may be made twice."""
    if not is_ours:
        kind = "lease_lost"
    elif outcome.is_received:
        kind = "received"
    elif outcome.status is not None:
        kind = f"{outcome.status // 100}xx"
    else:
        kind = outcome.error
    attempts.labels(kind).inc()
    latency.observe(outcome.latency_ms / 1000)


def oldest_open_seconds() -> float:
    """Age of the oldest delivery that is not settled; 0 without one. One index look-up."""
    first = Delivery.objects.open().order_by("created_at").values_list("created_at", flat=True).first()
    return (timezone.now() - first).total_seconds() if first else 0.0


def waiting() -> Iterator[Metric]:
    """Looked up while the metrics page is made."""
    yield GaugeMetricFamily(
        "partner_api_webhook_oldest_open_seconds",
        "Age of the oldest delivery that is not settled.",
        value=oldest_open_seconds(),
    )
