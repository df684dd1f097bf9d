"""How many of a period's requests each contract version has still to be paid for.

A version is paid for the requests of its own days, which the usage rollups know. What was logged too late
for a period that is closed counts in the next one and has no day there: its first version has it.
"""

import datetime as dt
import uuid
from collections import Counter
from dataclasses import dataclass

from django.db.models import Sum
from django.utils import timezone

from billing import periods, prices, requests_quota
from billing.models import BillingPeriod, Contract, LedgerEntry, Level, UsageDaily
from billing.models.contract import REQUEST
from billing.pricing import Share, midnight, shares


@dataclass(frozen=True)
class Due:
    """So many more requests of a version, after `before` others of it; `until` is its last moment so far."""

    contract: Contract
    before: int
    quantity: int
    until: dt.datetime

    def shares(self) -> list[Share]:
        tiers = prices.tiers_of(self.contract, REQUEST)
        return list(shares(tiers, before=self.before, quantity=self.quantity))


def of_period(period: BillingPeriod) -> list[Due]:
    """Nothing for versions without a price for requests, nor for a period that is closed."""
    days = periods.span_of(period)
    versions = prices.versions(period.partner_id, days.start, days.end)
    if period.closed_at is not None or not any(prices.tiers_of(one, REQUEST) for one, _, _ in versions):
        return []
    used = _by_day(period)
    late = max(0, period.requests_used - sum(used.values()))
    charged = _charged(period)
    found = []
    for number, (contract, first, end) in enumerate(versions):
        own = sum(count for day, count in used.items() if first <= day < end)
        own += late if number == 0 else 0
        before = charged[contract.pk]
        if own > before and prices.tiers_of(contract, REQUEST):
            until = min(timezone.now(), midnight(end) - dt.timedelta(microseconds=1))
            found.append(Due(contract, before, own - before, until))
    return found


def _by_day(period: BillingPeriod) -> Counter[dt.date]:
    rows = UsageDaily.objects.filter(
        level=Level.FULL,
        partner=period.partner_id,
        livemode=True,
        moment__gte=period.starts_at,
        moment__lt=period.ends_at,
    )
    used: Counter[dt.date] = Counter()
    for moment, status, count in rows.values_list("moment", "status").annotate(count=Sum("requests")):
        if requests_quota.is_counted(livemode=True, status=status):
            used[moment.date()] += count
    return used


def _charged(period: BillingPeriod) -> Counter[uuid.UUID | None]:
    own = LedgerEntry.objects.filter(period=period, kind=LedgerEntry.Kind.REQUESTS)
    return Counter(dict(own.values_list("contract").annotate(count=Sum("quantity"))))
