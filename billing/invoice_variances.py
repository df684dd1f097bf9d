"""Compares Stripe's final invoices with the ledger: each item of the contract, and its base fee.

It starts from the contract and not from the lines, or a line that is missing would be missed.
"""

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from django.db.models import QuerySet, Sum

from billing import prices
from billing.models import Contract, Invoice, InvoiceLine, LedgerEntry, StripeInvoice, StripeSubscription
from billing.pricing import Span, minor, overlap, period_of, prorated, rounded, shares
from billing.reconciliation import Variance
from keys.models import Partner

_FEE: Final = LedgerEntry.Kind.BASE_FEE


def find(start: dt.datetime, end: dt.datetime, partner: Partner | None) -> Iterator[Variance]:
    """Of those that became final in that time."""
    ended = final(partner).filter(invoice__finalized_at__gte=start, invoice__finalized_at__lt=end)
    subscriptions = StripeSubscription.objects.select_related("contract").prefetch_related("contract__prices")
    for at_stripe in ended:
        subscription = subscriptions.get(subscription_id=at_stripe.subscription_id)
        lines = list(at_stripe.invoice.lines.filter(contract=subscription.contract))
        yield from _fees(at_stripe, subscription, [line for line in lines if line.kind == _FEE])
        of_items: dict[str, list[InvoiceLine]] = {
            price.item: [] for price in subscription.contract.prices.all()
        }
        for line in lines:
            if line.kind != _FEE:
                of_items.setdefault(line.item, []).append(line)
        for item, own in sorted(of_items.items()):
            yield from _usage(at_stripe, subscription.contract, item, own)


def final(partner: Partner | None) -> QuerySet[StripeInvoice]:
    """Stripe's invoices of a whole cycle that can't change any more."""
    found = StripeInvoice.objects.filter(billing_reason="subscription_cycle").select_related("invoice")
    found = found.filter(invoice__status__in=[Invoice.Status.OPEN, Invoice.Status.PAID])
    # Those of a customer that was deleted have nothing left to be compared with.
    found = found.filter(subscription_id__in=StripeSubscription.objects.values("subscription_id"))
    return found.filter(invoice__partner=partner) if partner is not None else found


def metered_of(at_stripe: StripeInvoice) -> QuerySet[LedgerEntry]:
    """The meter events of an invoice's subscription and period."""
    own = LedgerEntry.objects.of_cycle(at_stripe.subscription_id, at_stripe.starts_at, at_stripe.ends_at)
    return own.counted()


def _usage(
    at_stripe: StripeInvoice, contract: Contract, item: str, lines: list[InvoiceLine]
) -> Iterator[Variance]:
    """Its quantity with what was sent before it was final, its amount with its price and with our charges."""
    sent = metered_of(at_stripe).filter(item=item, synced_at__lte=at_stripe.invoice.finalized_at)
    sums = sent.aggregate(quantity=Sum("quantity"), amount=Sum("amount"))
    ours = int(sums["quantity"] or 0)
    quantity, amount = sum(line.quantity for line in lines), sum(line.amount for line in lines)
    subject = str(lines[0].pk) if lines else f"{at_stripe.pk}:{item}"
    if quantity != ours:
        detail = f"{item}: the invoice has {quantity}, the ledger sent {ours}"
        yield _of(at_stripe, "invoice_quantity_mismatch", subject, detail)
    expected = _amount(contract, item, quantity)
    charged = rounded(sums["amount"] or Decimal(0))
    if amount != expected:
        detail = f"{quantity} {item} cost {expected}, the invoice has {amount}"
        yield _of(at_stripe, "price_mismatch", subject, detail)
    elif quantity == ours and amount != charged:
        detail = f"{quantity} {item} are {charged} in the ledger, the invoice has {amount}"
        yield _of(at_stripe, "price_mismatch", subject, detail)


def _fees(
    at_stripe: StripeInvoice, subscription: StripeSubscription, lines: list[InvoiceLine]
) -> Iterator[Variance]:
    """Stripe bills a fee ahead: an invoice of November's usage has December's fee."""
    contract = subscription.contract
    subject = str(lines[0].pk) if lines else f"{at_stripe.pk}:base_fee"
    priced = {line.unit_price for line in lines}
    if priced - {contract.base_fee}:
        detail = f"the base fee is {contract.base_fee}, Stripe's price is {lines[0].unit_price}"
        yield _of(at_stripe, "price_mismatch", subject, detail)
        return
    # What Stripe gives back for days after an end is below 0, and belongs to an invoice before.
    amount = sum(line.amount for line in lines if line.amount > 0)
    allowed = _fees_of_next(at_stripe, subscription)
    if amount not in allowed:
        detail = f"the base fee of the next period is {max(allowed)}, the invoice has {amount}"
        yield _of(at_stripe, "price_mismatch", subject, detail)


def _fees_of_next(at_stripe: StripeInvoice, subscription: StripeSubscription) -> set[int]:
    """The whole one, or that of the days until the subscription's end where Stripe knew of it by then."""
    contract = subscription.contract
    first = at_stripe.ends_at.date()
    whole = period_of(first, contract.anchor_day)
    fee = minor(contract.base_fee, contract.currency)
    full = rounded(prorated(fee, days=overlap(whole, Span(first, whole.end)), of_days=whole.days))
    if subscription.ends_at is None or subscription.ends_at.date() >= whole.end:
        return {full}
    days = overlap(whole, Span(first, max(first, subscription.ends_at.date())))
    return {full, rounded(prorated(fee, days=days, of_days=whole.days))}


def _amount(contract: Contract, item: str, quantity: int) -> int:
    tiers = prices.tiers_of(contract, item) or prices.FREE
    parts = shares(tiers, before=0, quantity=quantity)
    exact = (minor(share.unit_price * share.quantity, contract.currency) for share in parts)
    return rounded(sum(exact, Decimal(0)))


def _of(at_stripe: StripeInvoice, kind: str, subject: str, detail: str) -> Variance:
    day = at_stripe.ends_at.date()
    return Variance(kind, at_stripe.invoice.partner_id, day, subject, detail, is_final=True)
