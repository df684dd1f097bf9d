"""Counts what quotas tell of, so that it is seen also when nobody listens to a webhook."""

from typing import Any

from prometheus_client import Counter

from billing.signals import quota_exceeded, quota_threshold_reached
from partner_api.ops.metrics import begin_at_zero

QUOTA_EVENTS = Counter(
    "partner_api_quota_events_total",
    "Quotas and budgets that reached a threshold, or were exceeded.",
    ["event"],
)
begin_at_zero(QUOTA_EVENTS, ("threshold_reached", "exceeded"))


def connect() -> None:
    quota_threshold_reached.connect(_threshold, dispatch_uid="billing.quota_metrics")
    quota_exceeded.connect(_exceeded, dispatch_uid="billing.quota_metrics")


def _threshold(**_: Any) -> None:
    QUOTA_EVENTS.labels("threshold_reached").inc()


def _exceeded(**_: Any) -> None:
    QUOTA_EVENTS.labels("exceeded").inc()
