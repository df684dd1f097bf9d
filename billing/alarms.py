"""Watches and looks: whether the ledger reaches Stripe, and whether the books agree.

What is looked up here is the same for every process and deployment that is asked.
"""

import datetime as dt
from collections.abc import Iterator
from typing import Any, Final

from django.conf import settings
from django.db.models import Count, Min
from django.utils import timezone
from prometheus_client.core import GaugeMetricFamily, Metric

from billing import reconciliation, stripe_client
from billing.models import LedgerEntry, ReconciliationRun, StripeLane
from partner_api.ops.watching import Finding

# Stripe takes usage of so many days.
LIMIT: Final = dt.timedelta(days=35)


def ledger_unsynced() -> Iterator[Finding]:
    """One finding, as soon as an entry is STRIPE_UNSYNCED_ALERT_DAYS old: long before it is too late."""
    facts = _unsynced()
    age = _age(facts)
    if age < dt.timedelta(days=settings.STRIPE_UNSYNCED_ALERT_DAYS):
        return
    left = max(0, (LIMIT - age).days)
    errors = StripeLane.objects.exclude(last_error="").values_list("last_error", flat=True)
    # The code only: what Stripe says may name people.
    codes = sorted({error.split(":")[0] for error in errors.distinct()})
    yield Finding(
        "ledger",
        f"{facts['count']} ledger entries have not reached Stripe, the oldest for {age.days} days; "
        f"{left} days are left for it. Last in the way: {', '.join(codes[:5]) or 'nothing'}",
    )


def books_disagree() -> Iterator[Finding]:
    """What the last whole comparison found, or why it could not compare all."""
    run = ReconciliationRun.objects.whole().first()
    if run is None or run.is_clean:
        return
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(run.counts.items()))
    what = "; ".join(part for part in (counts, run.error) if part)
    url = f"{settings.PUBLIC_BASE_URL}/admin/billing/reconciliationrun/{run.pk}/change/"
    yield Finding("books", f"the books do not agree: {what[:300]}. Each is named at {url}")


def unsynced_entries() -> Iterator[Metric]:
    """How many entries wait for Stripe, and how old the oldest is."""
    facts = _unsynced()
    yield GaugeMetricFamily(
        "partner_api_stripe_unsynced_entries",
        "Ledger entries that Stripe has not got yet.",
        value=facts["count"],
    )
    yield GaugeMetricFamily(
        "partner_api_stripe_oldest_unsynced_seconds",
        "Age of the oldest entry that Stripe has not got.",
        value=_age(facts).total_seconds(),
    )


def variances() -> Iterator[Metric]:
    """By class, of the last whole comparison that could compare all."""
    family = GaugeMetricFamily(
        "partner_api_reconcile_variances", "What the last reconciliation found.", labels=["kind"]
    )
    run = ReconciliationRun.objects.whole().filter(error="").first()
    for kind in reconciliation.KINDS:
        family.add_metric([kind], run.counts.get(kind, 0) if run else 0)
    yield family


def _unsynced() -> dict[str, Any]:
    if not stripe_client.is_configured():
        return {"count": 0, "oldest": None}
    waiting = LedgerEntry.objects.pending().of_partners_at_stripe()
    return waiting.aggregate(count=Count("pk"), oldest=Min("occurred_at"))


def _age(facts: dict[str, Any]) -> dt.timedelta:
    now = timezone.now()
    return max(dt.timedelta(0), now - (facts["oldest"] or now))
