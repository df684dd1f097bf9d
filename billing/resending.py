"""What a customer that was deleted at Stripe takes with it: all that no final invoice of it bills.

Its usage and its invoice items are gone there. The ledger has them, and gives them to the next customer;
what was on a final invoice stays billed by that.
"""

import datetime as dt
from typing import Final

import structlog
from django.db.models import DateTimeField, Exists, ExpressionWrapper, OuterRef, Q
from django.utils import timezone

from billing import invoice_mirror, sending, stripe_client
from billing.models import Invoice, InvoiceLine, LedgerEntry, StripeCustomer
from billing.models.ledger import ITEM_PREFIX, stripe_moment
from billing.stripe_client import invoices

log = structlog.get_logger(__name__)

State = LedgerEntry.SyncState
# Stripe tells whole seconds, of a clock of its own.
_CLOCKS: Final = dt.timedelta(minutes=1)
_FINAL: Final = Q(invoice__origin=Invoice.Origin.STRIPE, invoice__finalized_at__isnull=False)


def learn_what_is_final(customer: StripeCustomer) -> None:
    """Mirrors the customer's invoices of which we may not have heard all. Raises StripeFault."""
    try:
        at_stripe = invoices.of_customer(customer.customer_id)
    except stripe_client.Gone:
        at_stripe = []
    known = Invoice.objects.exclude(finalized_at=None).filter(stripe_invoice_id__in=at_stripe)
    final = set(known.values_list("stripe_invoice_id", flat=True))
    drafts = Invoice.objects.filter(
        partner=customer.partner_id, origin=Invoice.Origin.STRIPE, status=Invoice.Status.DRAFT
    )
    unknown = {*at_stripe, *drafts.values_list("stripe_invoice_id", flat=True)} - final
    for invoice_id in sorted(unknown):
        invoice_mirror.mirror(invoice_id)


def reopen(customer: StripeCustomer) -> int:
    """Lets what the customer had, and no final invoice bills, wait to be sent again; how many entries.

    Call it in the transaction in which another customer takes its place.
    """
    had = LedgerEntry.objects.filter(
        partner=customer.partner_id, sync_state=State.ACCEPTED, synced_at__gte=customer.connected_at
    ).exclude(stripe_identifier=sending.NOTHING_TO_BILL)
    lines = InvoiceLine.objects.filter(_FINAL, invoice__partner=customer.partner_id)
    as_item = lines.filter(entry=OuterRef("pk"))
    as_usage = lines.filter(
        entry=None,
        contract=OuterRef("contract"),
        item=OuterRef("item"),
        invoice__at_stripe__starts_at__lte=OuterRef("stripe_moment"),
        invoice__at_stripe__ends_at__gt=OuterRef("stripe_moment"),
        invoice__finalized_at__gt=ExpressionWrapper(
            OuterRef("synced_at") - _CLOCKS, output_field=DateTimeField()
        ),
    )
    is_item = Q(stripe_identifier__startswith=ITEM_PREFIX)
    lost = (
        had.annotate(stripe_moment=stripe_moment())
        .exclude(Exists(as_item))
        .filter(is_item | ~Exists(as_usage))
    )
    count = LedgerEntry.objects.filter(pk__in=lost.values("pk")).update(
        sync_state=State.PENDING,
        synced_at=None,
        stripe_identifier="",
        sync_error="",
        sync_attempts=0,
        next_sync_at=timezone.now(),
    )
    if count:
        log.warning("ledger_entries_are_sent_again", customer=customer.customer_id, entries=count)
    return count
