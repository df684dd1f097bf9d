"""Makes a period's invoice from the ledger: a preview while the period runs, its draft once it has ended.

A line is all entries of one kind, item, contract version and price, so that the entries behind it can be
listed; it is rounded once. A draft made here is sent to nobody: Stripe's invoice takes its place, or
finance makes it final (billing.settling).
"""

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import structlog
from django.db import IntegrityError, transaction
from django.db.models import Min, QuerySet, Sum
from django.utils import timezone

from billing import ledger, periods, requests_due
from billing.models import BillingPeriod, Contract, Invoice, InvoiceLine, LedgerEntry
from billing.models.contract import REISSUE, REQUEST
from billing.pricing import midnight, minor, rounded
from keys.models import Partner

log = structlog.get_logger(__name__)

Kind = LedgerEntry.Kind
# Each of these is a line by itself.
_SINGLE: Final = (Kind.ADJUSTMENT, Kind.CREDIT, Kind.CARRY_OVER, Kind.BASE_FEE)


@dataclass(frozen=True)
class Line:
    """One line, saved or not. `amount` is in minor units, rounded."""

    kind: str
    item: str
    contract_id: Any
    entry_id: Any
    description: str
    quantity: int
    unit_price: Decimal | None
    amount: int
    currency: str


def preview(period: BillingPeriod) -> list[Line]:
    """What the invoice will say: the whole base fee, and what else there is so far. Writes nothing."""
    recorded = _lines(period.entries.all())
    fees_in_ledger = {line.contract_id for line in recorded if line.kind == Kind.BASE_FEE}
    return [*_fees_to_come(period, fees_in_ledger), *recorded, *_requests_to_come(period)]


def totals(lines: Iterable[Line]) -> dict[str, int]:
    """By currency, in minor units."""
    sums: dict[str, int] = {}
    for line in lines:
        sums[line.currency] = sums.get(line.currency, 0) + line.amount
    return sums


@transaction.atomic
def close(period: BillingPeriod) -> list[Invoice]:
    """Ends a period: fees and requests are charged, its drafts are made, nothing can be added any more.

    Safe to repeat and to run twice at once: the second finds it closed. Raises ValueError for a period
    that still runs.
    """
    locked = BillingPeriod.objects.select_for_update(no_key=True).select_related("partner").get(pk=period.pk)
    if locked.closed_at is not None:
        return list(locked.invoices.filter(origin=Invoice.Origin.LOCAL))
    if locked.ends_at > timezone.now():
        message = f"the period {locked} has not ended"
        raise ValueError(message)
    ledger.charge_base_fees(locked)
    ledger.charge_requests(locked)
    sums = totals(_lines(locked.entries.all()))
    for currency, total in sums.items():
        if total < 0:
            ledger.carry_over(locked, -total, currency)
    lines = _lines(locked.entries.all())
    invoices = [_draft(locked, currency, lines) for currency in sorted({line.currency for line in lines})]
    locked.closed_at = timezone.now()
    locked.save(update_fields=["closed_at"])
    return invoices


def close_ended(*, now: dt.datetime) -> int:
    """Closes every period that has ended; how many. A contract with a fee needs no orders for that."""
    closed = 0
    for partner in Partner.objects.filter(pk__in=_with_something_to_bill()):
        for period in _ended(partner, now):
            try:
                close(period)
            except IntegrityError as error:
                # One partner's trouble must not keep the others' books open; the next run tries again.
                log.exception("period_not_closed", period=str(period.pk), reason=str(error))
                break
            closed += 1
    return closed


def entries_of(line: InvoiceLine) -> QuerySet[LedgerEntry]:
    """The ledger entries whose sum a line of our own is."""
    if line.entry_id is not None:
        return LedgerEntry.objects.filter(pk=line.entry_id)
    if line.unit_price is None:
        return LedgerEntry.objects.none()
    return LedgerEntry.objects.filter(
        period=line.invoice.period_id,
        kind=line.kind,
        item=line.item,
        contract=line.contract_id,
        unit_price=line.unit_price,
        currency=line.invoice.currency,
    )


def _ended(partner: Partner, now: dt.datetime) -> Iterator[BillingPeriod]:
    """The partner's periods that have ended and are open, oldest first; those without an order are made."""
    closed = partner.billing_periods.exclude(closed_at=None).order_by("-ends_at").first()
    first_day = partner.contracts.standing().aggregate(first=Min("starts_on"))["first"]
    first_period = partner.billing_periods.order_by("starts_at").first()
    starts = [period.starts_at for period in [first_period] if period]
    moment = closed.ends_at if closed else min([*starts, *([midnight(first_day)] if first_day else [])])
    while (period := periods.at(partner, moment)).ends_at <= now:
        yield period
        moment = period.ends_at


def _with_something_to_bill() -> set[Any]:
    of_contracts = Contract.objects.standing().values_list("partner", flat=True)
    of_periods = BillingPeriod.objects.filter(closed_at=None).values_list("partner", flat=True)
    return {*of_contracts, *of_periods}


def _draft(period: BillingPeriod, currency: str, lines: list[Line]) -> Invoice:
    own = [line for line in lines if line.currency == currency]
    total = sum(line.amount for line in own)
    invoice = Invoice.objects.create(
        partner=period.partner,
        period=period,
        currency=currency,
        subtotal=total,
        total=total,
        amount_due=total,
    )
    InvoiceLine.objects.bulk_create(
        InvoiceLine(
            invoice=invoice,
            kind=line.kind,
            item=line.item,
            contract_id=line.contract_id,
            entry_id=line.entry_id,
            description=line.description,
            quantity=line.quantity,
            unit_price=line.unit_price,
            amount=line.amount,
        )
        for line in own
    )
    return invoice


def _lines(entries: QuerySet[LedgerEntry]) -> list[Line]:
    grouped = (
        entries.exclude(kind__in=_SINGLE)
        .order_by("kind", "item", "contract__version", "-unit_price")
        .values("kind", "item", "contract", "unit_price", "currency", "is_priced")
        .annotate(count=Sum("quantity"), sum=Sum("amount"))
    )
    lines = [
        Line(
            row["kind"],
            row["item"],
            row["contract"],
            None,
            _description(row["kind"], row["item"], is_priced=row["is_priced"]),
            row["count"],
            row["unit_price"],
            rounded(row["sum"]),
            row["currency"],
        )
        for row in grouped
    ]
    singles = [
        Line(
            entry.kind,
            entry.item,
            entry.contract_id,
            entry.pk,
            f"{_description(entry.kind, entry.item)}: {entry.reason}",
            1,
            None,
            rounded(entry.amount),
            entry.currency,
        )
        for entry in entries.filter(kind__in=_SINGLE).order_by("id")
    ]
    return [*(line for line in singles if line.kind == Kind.BASE_FEE), *lines] + [
        line for line in singles if line.kind != Kind.BASE_FEE
    ]


def _description(kind: str, item: str, *, is_priced: bool = True) -> str:
    match kind:
        case Kind.BASE_FEE:
            return "Base fee"
        case Kind.REQUESTS:
            return "API requests"
        case Kind.ADJUSTMENT:
            return "Adjustment"
        case Kind.CREDIT:
            return "Credit"
        case Kind.CARRY_OVER:
            return "Carry-over"
    name = {REISSUE: "Reissued deeds", "deed": "Deeds"}.get(item, f"Deeds: {item}")
    return name if is_priced else f"{name} (no price agreed)"


def _fees_to_come(period: BillingPeriod, known: set[Any]) -> list[Line]:
    return [
        Line(
            Kind.BASE_FEE,
            "base_fee",
            fee.contract.pk,
            None,
            f"Base fee: {fee.days}",
            1,
            None,
            rounded(fee.amount),
            fee.contract.currency,
        )
        for fee in ledger.base_fees(period)
        if fee.contract.pk not in known
    ]


def _requests_to_come(period: BillingPeriod) -> list[Line]:
    return [
        Line(
            Kind.REQUESTS,
            REQUEST,
            due.contract.pk,
            None,
            "API requests, not charged yet",
            share.quantity,
            share.unit_price,
            rounded(minor(share.unit_price * share.quantity, due.contract.currency)),
            due.contract.currency,
        )
        for due in requests_due.of_period(period)
        for share in due.shares()
    ]
