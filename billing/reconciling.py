"""Runs a comparison of the books, keeps what it found, and repairs what is safe when asked to."""

import dataclasses
import datetime as dt
from collections import Counter
from typing import Any, Final

import structlog
from django.db import transaction
from django.utils import timezone

from billing import reconciliation
from billing.models import ReconciliationRun
from billing.models.reconciliation import WHOLE
from billing.reconciliation import Variance
from billing.stripe_client import Refused, StripeFault
from keys import audit
from keys.models import Partner

log = structlog.get_logger(__name__)

DEFAULT_DAYS: Final = WHOLE.days


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
    found, row.error = reconciliation.compare(start, end, partner)
    if is_repairing:
        row.repaired = _repair_all(found, actor)
        found, row.error = reconciliation.compare(start, end, partner)
    row.error = row.error[:500]
    row.variances = [_plain(one) for one in found]
    row.counts = dict(Counter(one.kind for one in found))
    row.finished_at = timezone.now()
    row.save(update_fields=["variances", "counts", "repaired", "error", "finished_at"])
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
    """The default time, of all partners; billing.alarms tells staff what it found."""
    end = timezone.now() - dt.timedelta(minutes=1)
    actor = audit.Actor.system("billing.tasks.reconcile")
    return run(end - WHOLE, end, actor=actor)


def _repair_all(found: list[Variance], actor: audit.Actor) -> int:
    """How many of the safe ones were repaired."""
    done = 0
    for one in found:
        try:
            done += one.kind in reconciliation.SAFE and reconciliation.repair(one, actor)
        except StripeFault as fault:
            log.warning("variance_not_repaired", kind=one.kind, subject=one.subject, code=fault.code)
            if not isinstance(fault, Refused):
                break  # each of the others would wait for Stripe as long
    return done


def _plain(variance: Variance) -> dict[str, Any]:
    facts = dataclasses.asdict(variance)
    is_repairable = reconciliation.is_repairable(variance)
    is_safe = is_repairable and variance.kind in reconciliation.SAFE
    return {
        **facts,
        "partner_id": str(variance.partner_id),
        "day": variance.day.isoformat(),
        "repair": "safe" if is_safe else "by hand" if is_repairable else "look",
    }
