"""Writes the ledger: what is charged, once for each source, in the transaction that makes it due.

Nothing is ever taken out or edited. Where no contract says what a deed costs, its entry stands there
all the same, at 0 and marked as not priced, so that the fact is kept and finance sees it.
"""

import datetime as dt
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from billing import periods, prices, quotas, requests_due
from billing.models import BillingPeriod, Contract, LedgerEntry
from billing.models.contract import REQUEST
from billing.pricing import Share, Span, minor, overlap, prorated, rounded, shares
from keys import audit
from keys.models import Partner

Kind = LedgerEntry.Kind
DEED_SOURCE: Final = "deed"
PRICING_SOURCE: Final = "pricing"
_COUNT: Final = """
    INSERT INTO period_counts AS count (period_id, item, quantity) VALUES (%s, %s, %s)
    ON CONFLICT (period_id, item) DO UPDATE SET quantity = count.quantity + EXCLUDED.quantity
    RETURNING quantity
"""


@dataclass(frozen=True)
class DeedFacts:
    """What the ledger must know of a completed deed."""

    partner: Partner
    deed_id: uuid.UUID
    deed_type: str
    livemode: bool
    is_reissue: bool
    completed_at: dt.datetime


def charge(deed: DeedFacts) -> LedgerEntry | None:
    """Charges a deed, and turns its reservation into use. None for a test deed, which is never charged.

    Call it in the transaction that completes the deed. Raises IntegrityError (`one_charge_per_source`)
    for a deed that was charged before.
    """
    if not deed.livemode:
        return None
    reserved_in = quotas.release(deed.deed_id)
    period = periods.open_at(deed.partner, deed.completed_at)
    contract = Contract.objects.in_force(deed.partner.pk, deed.completed_at.astimezone(dt.UTC).date())
    item = prices.item_of(contract, deed.deed_type, is_reissue=deed.is_reissue)
    (share,) = _count(period, contract, item, 1)
    entry = _entry(period, contract, Kind.DEED, item, share, occurred_at=deed.completed_at)
    entry.source_kind, entry.source_id = DEED_SOURCE, str(deed.deed_id)
    entry.deed_type = deed.deed_type
    entry.save(force_insert=True)
    # A deed counts against the quota of the period in which it was ordered.
    BillingPeriod.objects.filter(pk=reserved_in or period.pk).update(
        deeds_used=F("deeds_used") + 1, money_used=F("money_used") + entry.amount
    )
    return entry


def charge_requests(period: BillingPeriod) -> list[LedgerEntry]:
    """Charges the period's requests that were not charged yet; call it inside a transaction.

    Each version has a price for those of its own days, or none.
    """
    locked = BillingPeriod.objects.select_for_update(no_key=True).get(pk=period.pk)
    entries = []
    for due in requests_due.of_period(locked):
        for number, share in enumerate(due.shares()):
            entry = _entry(locked, due.contract, Kind.REQUESTS, REQUEST, share, occurred_at=due.until)
            entry.source_kind = "requests"
            entry.source_id = f"{locked.pk}:{due.contract.pk}:{due.before}:{number}"
            entry.save(force_insert=True)
            entries.append(entry)
    return entries


@dataclass(frozen=True)
class BaseFee:
    """A version's fee for its days of a period: exact, in minor units; `days` says which, for people."""

    contract: Contract
    amount: Decimal
    days: str


def base_fees(period: BillingPeriod) -> Iterator[BaseFee]:
    """Of each version in force in the period that has a fee, charged or not."""
    days = periods.span_of(period)
    for contract, first, end in prices.versions(period.partner_id, days.start, days.end):
        if contract.base_fee:
            own, whole = overlap(days, Span(first, end)), periods.full_days(period, contract)
            fee = prorated(minor(contract.base_fee, contract.currency), days=own, of_days=whole)
            text = f"{first} to {end - dt.timedelta(days=1)}, {own} of {whole} days"
            yield BaseFee(contract, fee, text)


def charge_base_fees(period: BillingPeriod) -> list[LedgerEntry]:
    """Charges each contract version's fee for its days of the period, in the transaction that closes it."""
    entries = []
    for fee in base_fees(period):
        contract = fee.contract
        entry = _entry(
            period,
            contract,
            Kind.BASE_FEE,
            "base_fee",
            Share(1, contract.base_fee),
            occurred_at=period.ends_at - dt.timedelta(microseconds=1),
        )
        entry.amount, entry.amount_minor = fee.amount, rounded(fee.amount)
        entry.source_kind, entry.source_id = "base_fee", f"{contract.pk}:{period.pk}"
        entry.reason = fee.days
        entry.save(force_insert=True)
        entries.append(entry)
    return entries


@transaction.atomic
def correct(
    partner: Partner,
    amount: int,
    *,
    reason: str,
    actor: audit.Actor,
    source_id: str,
    currency: str | None = None,
) -> LedgerEntry:
    """An adjustment, or for a negative amount a credit, in the open period. `amount` is in minor units.

    The same `source_id` again changes nothing and gives the entry that it made. Raises ValueError for
    an amount of 0.
    """
    if amount == 0:
        message = "a correction of nothing"
        raise ValueError(message)
    now = timezone.now()
    period = periods.open_at(partner, now)
    # Under the period's lock: of two clicks at once the second finds what the first made.
    made = LedgerEntry.objects.filter(source_kind="correction", source_id=source_id).first()
    if made is not None:
        return made
    contract = Contract.objects.in_force(partner.pk, now.date())
    entry = _entry(
        period,
        contract,
        Kind.ADJUSTMENT if amount > 0 else Kind.CREDIT,
        "",
        Share(1, Decimal(0)),
        occurred_at=now,
    )
    entry.amount, entry.amount_minor, entry.is_priced = Decimal(amount), amount, True
    entry.currency = currency or entry.currency
    entry.source_kind, entry.source_id = "correction", source_id
    entry.reason, entry.author = reason, actor.name
    entry.save(force_insert=True)
    after = {"amount": amount, "currency": entry.currency, "period": str(period)}
    audit.record(actor, f"ledger.{entry.kind}", entry, partner=partner, after=after, reason=reason)
    return entry


@transaction.atomic
def carry_over(period: BillingPeriod, credit: int, currency: str) -> None:
    """Moves what the credits exceed the period's charges by (minor units, positive) to the next period."""
    following = periods.open_at(period.partner, period.ends_at)
    for where, amount, name in ((period, credit, "out"), (following, -credit, "in")):
        entry = _entry(where, None, Kind.CARRY_OVER, "", Share(1, Decimal(0)), occurred_at=period.ends_at)
        entry.amount, entry.amount_minor, entry.is_priced = Decimal(amount), amount, True
        entry.currency = currency
        entry.source_kind, entry.source_id = "carry_over", f"{period.pk}:{currency}:{name}"
        other = following if where is period else period
        entry.reason = f"credit {'carried to' if where is period else 'from'} the period {other}"
        entry.save(force_insert=True)


@transaction.atomic
def price_unpriced(partner: Partner, actor: audit.Actor, *, is_reissue: Callable[[LedgerEntry], bool]) -> int:
    """Charges all that was not priced when it happened and has a price now; how many entries that were.

    Each gets another entry, in the open period, with the price; the first one stays as it is. `is_reissue`
    says of an entry whether its deed replaces another: without a contract, no price of it said so.
    """
    done = 0
    unpriced = partner.ledger_entries.filter(is_priced=False).select_for_update().order_by("id")
    settled = set(
        LedgerEntry.objects.filter(
            source_kind=PRICING_SOURCE, source_id__in=[str(entry.pk) for entry in unpriced]
        ).values_list("source_id", flat=True)
    )
    for entry in unpriced:
        contract = Contract.objects.in_force(partner.pk, entry.occurred_at.date())
        item = prices.item_of(contract, entry.deed_type, is_reissue=is_reissue(entry))
        if str(entry.pk) in settled or not prices.is_priced(contract, item):
            continue
        period = periods.open_at(partner, timezone.now())
        (share,) = _count(period, contract, item, 1)
        later = _entry(period, contract, Kind.DEED, item, share, occurred_at=timezone.now())
        later.source_kind, later.source_id = PRICING_SOURCE, str(entry.pk)
        later.deed_type, later.author = entry.deed_type, actor.name
        later.reason = f"price of deed {entry.source_id}, made before its contract was known"
        later.save(force_insert=True)
        done += 1
    if done:
        audit.record(actor, "ledger.priced", partner, partner=partner, after={"entries": done})
    return done


def _entry(
    period: BillingPeriod,
    contract: Contract | None,
    kind: str,
    item: str,
    share: Share,
    *,
    occurred_at: dt.datetime,
) -> LedgerEntry:
    """A row that is not saved yet and has no source."""
    currency = prices.currency_of(contract)
    amount = minor(share.unit_price * share.quantity, currency)
    # Fees and what is carried over are Stripe's own to bill; what has no price there has no meter either.
    is_metered = kind in {Kind.DEED, Kind.REQUESTS} and bool(prices.tiers_of(contract, item))
    is_for_stripe = is_metered or kind in {Kind.ADJUSTMENT, Kind.CREDIT}
    state = LedgerEntry.SyncState.PENDING if is_for_stripe else LedgerEntry.SyncState.NOT_BILLABLE
    return LedgerEntry(
        partner_id=period.partner_id,
        period=period,
        contract=contract,
        kind=kind,
        item=item,
        quantity=share.quantity,
        unit_price=share.unit_price,
        amount=amount,
        amount_minor=rounded(amount),
        currency=currency,
        is_priced=kind not in {Kind.DEED, Kind.REQUESTS} or prices.is_priced(contract, item),
        occurred_at=occurred_at,
        sync_state=state,
    )


def _count(period: BillingPeriod, contract: Contract | None, item: str, quantity: int) -> list[Share]:
    """Counts so many more of an item, and at what price each falls. The period is locked by the caller.

    What has no price uses up no tier, as at Stripe, which is not told of it.
    """
    tiers = prices.tiers_of(contract, item)
    if not tiers:
        return [Share(quantity, Decimal(0))]
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, [period.pk, item, quantity])
        (after,) = cursor.fetchone()
    return list(shares(tiers, before=after - quantity, quantity=quantity))
