"""Runs a comparison of the books, keeps what it found, and repairs what is safe when asked to."""

import dataclasses
import datetime as dt
from collections import Counter
from typing import Any, Final

import structlog
from django.conf import settings
from django.core.mail import send_mail
from django.db import transaction
from django.utils import timezone

from billing import reconciliation
from billing.models import ReconciliationRun
from billing.reconciliation import Variance
from billing.stripe_client import StripeFault
from billing.stripe_metrics import VARIANCES
from keys import audit
from keys.models import Partner

log = structlog.get_logger(__name__)

# Stripe takes usage of 35 days; what is older can't change any more.
DEFAULT_DAYS: Final = 35
KINDS: Final = (
    "missing_charge",
    "double_charge",
    "orphan_charge",
    "unsynced",
    "sync_rejected",
    "late_event",
    "price_mismatch",
    "invoice_quantity_mismatch",
    "meter_excess",
)


def run(
    start: dt.datetime,
    end: dt.datetime,
    *,
    actor: audit.Actor,
    partner: Partner | None = None,
    is_repairing: bool = False,
    reason: str = "",
) -> ReconciliationRun:
    """Compares, and with `is_repairing` repairs what is safe and compares again; `reason` says why."""
    with transaction.atomic():
        row = ReconciliationRun.objects.create(
            starts_at=start, ends_at=end, partner=partner, actor=actor.name[:200]
        )
        if is_repairing:
            # Before: each repair has an entry of its own, and some are made at Stripe.
            audit.record(actor, "reconciliation.repair_ordered", row, partner=partner, reason=reason)
    try:
        found = reconciliation.find_variances(start, end, partner)
        if is_repairing:
            row.repaired = sum(_repair(one, actor) for one in found)
            found = reconciliation.find_variances(start, end, partner)
    except StripeFault as fault:
        # Nothing is clean that could not be compared.
        row.error = f"Stripe could not be asked: {fault}"[:500]
        found = []
    row.variances = [_plain(one) for one in found]
    row.counts = dict(Counter(one.kind for one in found))
    row.finished_at = timezone.now()
    row.save(update_fields=["variances", "counts", "repaired", "error", "finished_at"])
    for kind in KINDS:
        VARIANCES.labels(kind).set(row.counts.get(kind, 0))
    report = log.info if row.is_clean else log.error
    report("reconciled", run=str(row.pk), repaired=row.repaired, error=row.error, **row.counts)
    return row


def repair_one(variance: Variance, actor: audit.Actor, *, reason: str) -> bool:
    """Repairs one that somebody has looked at, safe or not. False where there is nothing (any more) to do."""
    ordered = {"variance": variance.kind, "subject": variance.subject}
    partner = Partner.objects.get(pk=variance.partner_id)
    audit.record(actor, "reconciliation.repair_ordered", None, partner=partner, after=ordered, reason=reason)
    return reconciliation.repair(variance, actor)


def nightly() -> ReconciliationRun:
    """The default time, of all partners; staff is told what it found."""
    end = timezone.now() - dt.timedelta(minutes=1)
    actor = audit.Actor.system("billing.tasks.reconcile")
    row = run(end - dt.timedelta(days=DEFAULT_DAYS), end, actor=actor)
    if not row.is_clean and settings.STAFF_EMAILS:
        counts = "".join(f"- {kind}: {count}\n" for kind, count in sorted(row.counts.items()))
        url = f"{settings.PUBLIC_BASE_URL}/admin/billing/reconciliationrun/{row.pk}/change/"
        text = f"The books do not agree:\n{counts or row.error}\nEach is named at {url}"
        send_mail(f"Reconciliation: {row.total} variances", text, None, settings.STAFF_EMAILS)
    return row


def _repair(variance: Variance, actor: audit.Actor) -> bool:
    return variance.kind in reconciliation.SAFE and reconciliation.repair(variance, actor)


def _plain(variance: Variance) -> dict[str, Any]:
    facts = dataclasses.asdict(variance)
    is_safe = variance.kind in reconciliation.SAFE
    return {
        **facts,
        "partner_id": str(variance.partner_id),
        "day": variance.day.isoformat(),
        "repair": "safe" if is_safe else "by hand" if reconciliation.is_repairable(variance) else "look",
    }
