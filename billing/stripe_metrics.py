"""What can be seen of the way from the ledger to Stripe."""

from prometheus_client import Counter, Gauge, Histogram

from partner_api.ops.metrics import begin_at_zero

METER_EVENTS = Counter(
    "partner_api_stripe_entries_total", "Ledger entries sent to Stripe, by how that went.", ["outcome"]
)
begin_at_zero(METER_EVENTS, ("accepted", "rejected", "busy", "misconfigured", "refused", "unavailable"))
SEND_SECONDS = Histogram(
    "partner_api_stripe_send_seconds",
    "How long one meter event or invoice item took.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
WEBHOOKS = Counter(
    "partner_api_stripe_webhooks_total", "Webhooks of Stripe, by what became of them.", ["outcome"]
)
begin_at_zero(WEBHOOKS, ("stored", "repeated", "ignored"))
HELD_INVOICES = Gauge(
    "partner_api_stripe_held_invoices",
    "Stripe's drafts that wait until all of their period was sent.",
    multiprocess_mode="mostrecent",
)
