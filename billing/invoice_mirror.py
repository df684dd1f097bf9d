"""Stripe's invoices as rows of ours, and the gate before they become final.

A draft is held as soon as we hear of it. It is released when every entry of its period is at Stripe and
Stripe's lines show as many as the ledger does; what reached Stripe later would never be paid.
"""

import datetime as dt
import uuid
from collections.abc import Iterator
from typing import Any, Final

import structlog
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from billing import invoicing, ledger, periods, signals, stripe_client, stripe_lines, syncing
from billing.models import (
    BillingPeriod,
    Contract,
    Invoice,
    LedgerEntry,
    StripeCustomer,
    StripeEvent,
    StripeInvoice,
    StripeSubscription,
)
from billing.stripe_client import invoices
from billing.stripe_facts import InvoiceFacts
from billing.stripe_metrics import HELD_INVOICES
from keys.models import Partner

log = structlog.get_logger(__name__)

Status = Invoice.Status
# An invoice goes forwards only; news that comes late can't take it back.
_RANKS: Final = {Status.DRAFT: 0, Status.OPEN: 1, Status.UNCOLLECTIBLE: 2, Status.VOID: 3, Status.PAID: 3}
_CYCLE: Final = "subscription_cycle"
_GONE: Final = "the invoice is gone at Stripe"


def mirror(stripe_invoice_id: str, *, event: StripeEvent | None = None) -> None:
    """Fetches an invoice and writes what it is now. With an event, settles that in the same transaction.

    Raises StripeFault.
    """
    fetched_at = timezone.now()
    try:
        facts = invoices.read(stripe_invoice_id)
    except stripe_client.Gone:
        _is_gone(stripe_invoice_id)
        if event is not None:
            event.settle(StripeEvent.State.IGNORED, now=timezone.now(), note=_GONE)
        return
    is_ours = facts.status == Status.DRAFT and facts.billing_reason == _CYCLE and bool(facts.subscription)
    if is_ours and facts.is_automatic:
        invoices.hold(facts.id)
    known = StripeCustomer.objects.select_related("partner").filter(customer_id=facts.customer)
    with transaction.atomic():
        if event is not None and not event.settle(StripeEvent.State.DONE, now=timezone.now()):
            return
        # One invoice of a customer at a time: the first has no row yet that could be locked.
        customer = known.select_for_update(no_key=True, of=("self",)).first()
        if customer is None:
            return
        invoice = _write(facts, customer, fetched_at, is_held=is_ours)
        if event is not None and event.kind == "invoice.payment_failed" and invoice is not None:
            _payment_failed(invoice)


def release_held() -> int:
    """Releases what may go; how many are still held."""
    void_local_drafts()
    held = StripeInvoice.objects.filter(is_held=True).select_related("invoice__partner").order_by("pk")
    left = 0
    for at_stripe in held:
        try:
            left += not release(at_stripe)
        except (stripe_client.StripeFault, IntegrityError) as fault:
            # One invoice's trouble must not hold the others; the next run tries again.
            left += 1
            _note(at_stripe, str(fault))
            log.warning("held_invoice_waits", invoice=str(at_stripe.pk), reason=str(fault))
    HELD_INVOICES.set(left)
    return left


def release(at_stripe: StripeInvoice) -> bool:
    """Flushes the invoice's period; finalizes it once Stripe has counted all. Raises StripeFault."""
    invoice = at_stripe.invoice
    try:
        facts = invoices.read(invoice.stripe_invoice_id)
    except stripe_client.Gone:
        _is_gone(invoice.stripe_invoice_id)
        return True
    if facts.status == Status.DRAFT:
        _charge_what_is_due(invoice.partner, at_stripe)
        syncing.flush(invoice.partner_id, invoice_id=facts.id)
        missing = _what_is_missing(at_stripe)
        if missing:
            _note(at_stripe, missing)
            return False
        invoices.release(facts.id)
    StripeInvoice.objects.filter(pk=at_stripe.pk).update(is_held=False, note="")
    log.info("stripe_invoice_released", invoice=str(invoice.pk))
    mirror(facts.id)
    return True


def expected_quantity(contract_id: uuid.UUID, item: str, start: dt.datetime, end: dt.datetime) -> int:
    """How many units of a contract's item Stripe was sent between two moments."""
    own = LedgerEntry.objects.filter(contract=contract_id, item=item)
    return own.between(start, end).counted().quantity()


def void_local_drafts() -> None:
    """Where Stripe's invoice of a period is there, the draft of our own has had its day."""
    stripes = StripeInvoice.objects.filter(billing_reason=_CYCLE).exclude(invoice__period=None)
    stripes = stripes.exclude(invoice__status=Status.VOID)
    replaced = Invoice.objects.filter(origin=Invoice.Origin.LOCAL, status=Status.DRAFT)
    replaced.filter(period__in=stripes.values("invoice__period")).update(status=Status.VOID)


def _write(
    facts: InvoiceFacts, customer: StripeCustomer, fetched_at: dt.datetime, *, is_held: bool
) -> Invoice | None:
    """The row, or None where a later look at it was written before."""
    found = Invoice.objects.select_for_update().filter(stripe_invoice_id=facts.id).first()
    before = found.status if found else None
    if found is not None and found.status == Status.VOID and found.finalized_at is None:
        before = Status.DRAFT  # one that was taken for deleted, and is there after all
    at_stripe = StripeInvoice.objects.filter(pk=found.pk).first() if found else None
    if at_stripe is not None and at_stripe.fetched_at > fetched_at:
        return found
    if before is not None and _RANKS[Status(before)] > _RANKS[Status(facts.status)]:
        return found
    subscription = StripeSubscription.objects.filter(subscription_id=facts.subscription).first()
    contract = subscription.contract if subscription else None
    due_at = facts.due_at or facts.finalized_at
    values: dict[str, Any] = {
        "partner": customer.partner,
        "period": BillingPeriod.objects.at(customer.partner_id, facts.starts_at).first(),
        "origin": Invoice.Origin.STRIPE,
        "status": facts.status,
        "is_sent": facts.status != Status.DRAFT,
        "number": facts.number,
        "currency": facts.currency,
        "subtotal": facts.subtotal,
        "total": facts.total,
        "tax": facts.total - facts.subtotal,
        "amount_paid": facts.amount_paid,
        "amount_due": max(0, facts.amount_due),
        "created_at": facts.created_at,
        "finalized_at": facts.finalized_at,
        "due_at": due_at,
        "paid_at": facts.paid_at,
        "hosted_invoice_url": facts.hosted_url,
        "invoice_pdf_url": facts.pdf_url,
        "synced_at": fetched_at,
    }
    if due_at is not None and contract is not None:
        values["grace_ends_at"] = due_at + dt.timedelta(days=contract.grace_days)
    if facts.status == Status.PAID:
        values["last_payment_error"] = ""
    invoice, _ = Invoice.objects.update_or_create(stripe_invoice_id=facts.id, defaults=values)
    StripeInvoice.objects.update_or_create(
        invoice=invoice,
        defaults={
            "subscription_id": facts.subscription,
            "billing_reason": facts.billing_reason,
            "starts_at": facts.starts_at,
            "ends_at": facts.ends_at,
            "is_held": is_held,
            "fetched_at": fetched_at,
        },
    )
    stripe_lines.write(invoice, facts)
    _announce(invoice, before)
    return invoice


def _announce(invoice: Invoice, before: str | None) -> None:
    was_final = before not in {None, Status.DRAFT}
    if invoice.status in {Status.OPEN, Status.PAID} and not was_final:
        signals.invoice_finalized.send(sender=Invoice, invoice=invoice)
    if invoice.status == Status.PAID and before != Status.PAID:
        signals.invoice_paid.send(sender=Invoice, invoice=invoice)
    if invoice.status != Status.DRAFT:
        void_local_drafts()


def _payment_failed(invoice: Invoice) -> None:
    """News that is only in the event: the invoice itself stays open."""
    if invoice.status != Status.OPEN:
        return
    invoice.last_payment_error = "Stripe could not take the payment."
    invoice.save(update_fields=["last_payment_error"])
    signals.invoice_payment_failed.send(sender=Invoice, invoice=invoice)


def _charge_what_is_due(partner: Partner, at_stripe: StripeInvoice) -> None:
    """The period's requests are charged when it is closed; its invoice can't wait for the next round."""
    period = periods.at(partner, at_stripe.starts_at)
    if period.closed_at is not None:
        return
    if period.ends_at <= timezone.now():
        invoicing.close(period)
    else:
        with transaction.atomic():
            ledger.charge_requests(period)


def _of_period(at_stripe: StripeInvoice) -> QuerySet[LedgerEntry]:
    return LedgerEntry.objects.of_cycle(at_stripe.subscription_id, at_stripe.starts_at, at_stripe.ends_at)


def _what_is_missing(at_stripe: StripeInvoice) -> str:
    """What a draft waits for; empty when nothing. Raises StripeFault."""
    waiting = _of_period(at_stripe).filter(sync_state=LedgerEntry.SyncState.PENDING).count()
    if waiting:
        return f"{waiting} entries are not at Stripe yet"
    own = StripeSubscription.objects.filter(subscription_id=at_stripe.subscription_id)
    subscription = own.select_related("contract").first()
    if subscription is None:
        # Its customer was deleted, and the next one is billed for what it had.
        return "its subscription is none of ours any more: void it at Stripe"
    facts = invoices.read(at_stripe.invoice.stripe_invoice_id)
    behind = "; ".join(_behind(subscription.contract, facts))
    return f"Stripe has not counted all: {behind}" if behind else ""


def _behind(contract: Contract, facts: InvoiceFacts) -> Iterator[str]:
    """How Stripe's count of each item that the contract prices differs from what it was sent.

    An item may have several lines, one a tier; one without a line is not counted at all.
    """
    items = {price.stripe_price_id: price.item for price in contract.prices.all() if price.stripe_price_id}
    for item in sorted(set(items.values())):
        lines = [line for line in facts.lines if items.get(line.price) == item]
        start = min((line.starts_at for line in lines), default=facts.starts_at)
        end = max((line.ends_at for line in lines), default=facts.ends_at)
        counted = sum(line.quantity for line in lines)
        wanted = expected_quantity(contract.pk, item, start, end)
        if counted != wanted:
            yield f"{item} {counted} of {wanted}"


def _is_gone(stripe_invoice_id: str) -> None:
    """Only a draft can be deleted at Stripe: it bills nothing, and nothing waits for it."""
    gone = Invoice.objects.filter(stripe_invoice_id=stripe_invoice_id, origin=Invoice.Origin.STRIPE)
    with transaction.atomic():
        gone.filter(status=Status.DRAFT).update(status=Status.VOID)
        at_stripe = StripeInvoice.objects.filter(invoice__in=gone)
        at_stripe.update(is_held=False, note=_GONE, fetched_at=timezone.now())


def _note(at_stripe: StripeInvoice, note: str) -> None:
    StripeInvoice.objects.filter(pk=at_stripe.pk).update(note=note[:500])
