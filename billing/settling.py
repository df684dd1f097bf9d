"""Invoices of our own, which no Stripe collects: finance makes them final and notes that they were paid.

The same news goes out as of Stripe's invoices. One that Stripe bills is left to Stripe, or its partner
would owe the same twice.
"""

import datetime as dt
from typing import Final

from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.utils import timezone

from billing import signals
from billing.billers import Billers
from billing.models import Contract, Invoice
from keys import audit

_LOCK: Final = 0x696E766F6963  # "invoic"
_DAY: Final = dt.timedelta(days=1)
# As for a new contract, where an invoice is of a time without one.
_TERMS: Final = Contract(payment_terms_days=30, grace_days=14)


@transaction.atomic
def finalize(invoice: Invoice, actor: audit.Actor, *, reason: str) -> None:
    """Gives a draft its number and its due date, by the contract's terms. Raises ValidationError.

    What costs nothing is paid with that.
    """
    if invoice.period is not None and Billers.of(invoice.partner_id).is_stripe(invoice.period):
        message = "Stripe makes the invoice of this period; this draft is void once it is there."
        raise ValidationError(message)
    terms = _terms_of(invoice)
    is_ours = invoice.finalize(
        _next_number(),
        now=timezone.now(),
        terms=dt.timedelta(days=terms.payment_terms_days),
        grace=dt.timedelta(days=terms.grace_days),
    )
    if not is_ours:
        message = "Only a draft that was made here can be made final."
        raise ValidationError(message)
    _record(actor, "finalized", invoice, reason=reason)
    signals.invoice_finalized.send(sender=Invoice, invoice=invoice)
    if invoice.total == 0:
        _settle(invoice)
        _record(actor, "paid", invoice, reason="nothing to pay")


@transaction.atomic
def mark_paid(invoice: Invoice, actor: audit.Actor, *, reference: str, reason: str) -> None:
    """Notes that all of it was paid; orders that waited for that are accepted at once.

    `reference` is what finance finds the payment by, such as a cheque's number. Raises ValidationError.
    """
    if not _settle(invoice):
        message = "Only an open invoice that was made here can be marked as paid."
        raise ValidationError(message)
    _record(actor, "paid", invoice, reason=reason, reference=reference)


def _settle(invoice: Invoice) -> bool:
    is_ours = invoice.settle(now=timezone.now())
    if is_ours:
        invoice.refresh_from_db()
        signals.invoice_paid.send(sender=Invoice, invoice=invoice)
    return is_ours


def _terms_of(invoice: Invoice) -> Contract:
    """Those of the period's last day."""
    last = (invoice.period.ends_at - _DAY if invoice.period else invoice.created_at).date()
    return Contract.objects.in_force(invoice.partner_id, last) or _TERMS


def _next_number() -> str:
    """Without gaps: a number is given in the transaction that makes an invoice final, one at a time."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    given = Invoice.objects.filter(origin=Invoice.Origin.LOCAL).exclude(number="").count()
    return f"L-{given + 1:06}"


def _record(actor: audit.Actor, verb: str, invoice: Invoice, *, reason: str, reference: str = "") -> None:
    invoice.refresh_from_db()
    after = {
        "status": invoice.status,
        "number": invoice.number,
        "amount_due": invoice.amount_due,
        "amount_paid": invoice.amount_paid,
        "currency": invoice.currency,
        **({"reference": reference} if reference else {}),
    }
    audit.record(actor, f"invoice.{verb}", invoice, partner=invoice.partner, after=after, reason=reason)
