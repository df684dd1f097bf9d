"""Stripe's invoices as rows of ours, and the gate before they become final.

A draft is held as soon as we hear of it. It is released when every entry of its period is at Stripe and
Stripe's lines show as many as the ledger does; what reached Stripe later would never be paid.
"""

import datetime as dt
import uuid
from typing import Any, Final

import structlog
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from billing import invoicing, ledger, periods, signals, stripe_client, syncing
from billing.models import (
    BillingPeriod,
    Contract,
    Invoice,
    InvoiceLine,
    LedgerEntry,
    Price,
    StripeCustomer,
    StripeEvent,
    StripeInvoice,
    StripeSubscription,
)
from billing.models.contract import REQUEST
from billing.pricing import major
from billing.stripe_client import invoices
from billing.stripe_facts import InvoiceFacts, LineFacts
from billing.stripe_metrics import HELD_INVOICES
from keys.models import Partner

log = structlog.get_logger(__name__)

Status = Invoice.Status
# An invoice goes forwards only; news that comes late can't take it back.
_RANKS: Final = {Status.DRAFT: 0, Status.OPEN: 1, Status.UNCOLLECTIBLE: 2, Status.VOID: 3, Status.PAID: 3}
_CYCLE: Final = "subscription_cycle"


def mirror(stripe_invoice_id: str, *, event: StripeEvent | None = None) -> None:
    """Fetches an invoice and writes what it is now. With an event, settles that in the same transaction.

    Raises StripeFault.
    """
    fetched_at = timezone.now()
    try:
        facts = invoices.read(stripe_invoice_id)
    except stripe_client.Gone:
        if event is not None:
            event.settle(StripeEvent.State.IGNORED, now=timezone.now(), note="the invoice is gone at Stripe")
        return
    is_ours = facts.status == Status.DRAFT and facts.billing_reason == _CYCLE and bool(facts.subscription)
    if is_ours and facts.is_automatic:
        invoices.hold(facts.id, idempotency_key=f"hold:{facts.id}")
    customer = StripeCustomer.objects.select_related("partner").filter(customer_id=facts.customer).first()
    with transaction.atomic():
        if event is not None and not event.settle(StripeEvent.State.DONE, now=timezone.now()):
            return
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
        except stripe_client.StripeFault as fault:
            left += 1
            _note(at_stripe, str(fault))
            log.warning("held_invoice_waits", invoice=str(at_stripe.pk), code=fault.code)
    HELD_INVOICES.set(left)
    return left


def release(at_stripe: StripeInvoice) -> bool:
    """Flushes the invoice's period; finalizes it once Stripe has counted all. Raises StripeFault."""
    invoice = at_stripe.invoice
    _charge_what_is_due(invoice.partner, at_stripe)
    syncing.flush(invoice.partner_id, invoice_id=invoice.stripe_invoice_id)
    waiting = _of_period(at_stripe).filter(sync_state=LedgerEntry.SyncState.PENDING).count()
    if waiting:
        _note(at_stripe, f"{waiting} entries are not at Stripe yet")
        return False
    facts = invoices.read(invoice.stripe_invoice_id)
    if facts.status == Status.DRAFT:
        behind = [text for line in facts.lines if (text := _is_behind(line, at_stripe))]
        if behind:
            _note(at_stripe, f"Stripe has not counted all: {'; '.join(behind)}")
            return False
        invoices.release(facts.id, idempotency_key=f"release:{facts.id}")
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
    _write_lines(invoice, facts)
    _announce(invoice, before)
    return invoice


def _write_lines(invoice: Invoice, facts: InvoiceFacts) -> None:
    invoice.lines.exclude(stripe_line_id__in=[line.id for line in facts.lines]).delete()
    for line in facts.lines:
        InvoiceLine.objects.update_or_create(
            stripe_line_id=line.id, defaults={"invoice": invoice, **_meaning(line, facts.currency)}
        )


def _meaning(line: LineFacts, currency: str) -> dict[str, Any]:
    """What a line of Stripe's stands for on our side."""
    unit = major(line.unit_amount, currency) if line.unit_amount is not None else None
    meaning: dict[str, Any] = {
        "description": line.description[:500],
        "quantity": max(0, line.quantity),
        "unit_price": unit,
        "amount": line.amount,
    }
    entry = _entry_of(line)
    if entry is not None:
        return {**meaning, "kind": entry.kind, "item": entry.item, "entry": entry}
    price = Price.objects.filter(stripe_price_id=line.price).first() if line.price else None
    if price is not None:
        kind = LedgerEntry.Kind.REQUESTS if price.item == REQUEST else LedgerEntry.Kind.DEED
        return {**meaning, "kind": kind, "item": price.item, "contract_id": price.contract_id}
    base = Contract.objects.filter(stripe_base_price_id=line.price).first() if line.price else None
    if base is not None:
        return {**meaning, "kind": LedgerEntry.Kind.BASE_FEE, "item": "base_fee", "contract": base}
    return {**meaning, "kind": LedgerEntry.Kind.ADJUSTMENT}


def _entry_of(line: LineFacts) -> LedgerEntry | None:
    try:
        return LedgerEntry.objects.filter(pk=uuid.UUID(line.metadata.get("entry", ""))).first()
    except ValueError:
        return None


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


def _is_behind(line: LineFacts, at_stripe: StripeInvoice) -> str:
    """How Stripe's count of a line differs from what it was sent; empty when it doesn't."""
    price = Price.objects.filter(stripe_price_id=line.price).first() if line.price else None
    if price is None:
        return ""
    wanted = expected_quantity(price.contract_id, price.item, line.starts_at, line.ends_at)
    return "" if line.quantity == wanted else f"{price.item} {line.quantity} of {wanted}"


def _note(at_stripe: StripeInvoice, note: str) -> None:
    StripeInvoice.objects.filter(pk=at_stripe.pk).update(note=note[:500])
