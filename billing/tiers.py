"""From which day a contract version with tiers can be in force.

Tiers count from a period's first day, here and at Stripe, where each version begins anew with its own
subscription. A version that began in the middle of a period would be counted in two ways: it can't.
"""

import datetime as dt
from collections.abc import Iterable
from decimal import Decimal

from billing import prices
from billing.models import BillingPeriod, Contract
from billing.pricing import Span, midnight, period_of
from keys.models import Partner


def why_not_from(
    partner: Partner, starts_on: dt.date, rows: Iterable[tuple[str, int, Decimal]], *, anchor_day: int
) -> str | None:
    """In a sentence; None for a version without tiers, or whose periods are those of the ledger."""
    if not any(after for _, after, _ in rows):
        return None
    running = _period_at(partner, starts_on, anchor_day)
    is_first_day = running.start == starts_on
    is_alone = not prices.versions(partner.pk, running.start, starts_on)
    if (is_first_day or is_alone) and running.end == period_of(starts_on, anchor_day).end:
        return None
    return f"Prices with tiers start on the first day of a period: take {running.end}."


def _period_at(partner: Partner, day: dt.date, anchor_day: int) -> Span:
    """The period that has the day: as it is, or as it will be made."""
    made = BillingPeriod.objects.at(partner.pk, midnight(day)).first()
    if made is not None:
        return Span(made.starts_at.date(), made.ends_at.date())
    before = Contract.objects.in_force(partner.pk, day - dt.timedelta(days=1))
    running = period_of(day, before.anchor_day if before else anchor_day)
    return running if running.start != day else Span(day, period_of(day, anchor_day).end)
