"""What was charged, for the dashboard: the ledger's live amounts by currency and by hour or day."""

import datetime as dt
from decimal import Decimal

from django.db.models import Sum
from django.db.models.functions import TruncDay, TruncHour

from billing.models import LedgerEntry
from billing.pricing import major
from billing.usage import Question

# What is carried over from one period to the next was charged, or given, in the first.
_CHARGES = (
    LedgerEntry.Kind.DEED,
    LedgerEntry.Kind.REQUESTS,
    LedgerEntry.Kind.BASE_FEE,
    LedgerEntry.Kind.ADJUSTMENT,
    LedgerEntry.Kind.CREDIT,
)


def by_period(question: Question) -> dict[str, dict[dt.datetime, Decimal]]:
    """Amounts in major units. Nothing for test mode, which is never charged."""
    if question.livemode is False:
        return {}
    span = question.range
    entries = LedgerEntry.objects.filter(
        kind__in=_CHARGES, occurred_at__gte=span.start, occurred_at__lt=span.end
    )
    if question.partner is not None:
        entries = entries.filter(partner=question.partner)
    trunc = TruncHour if question.interval == "hour" else TruncDay
    sums = (
        entries.values("currency", at=trunc("occurred_at", tzinfo=dt.UTC))
        .annotate(sum=Sum("amount"))
        .order_by()
    )
    found: dict[str, dict[dt.datetime, Decimal]] = {}
    for row in sums:
        found.setdefault(row["currency"], {})[row["at"]] = major(row["sum"], row["currency"])
    return found
