"""An invoice: drafted here from the ledger, or Stripe's own, mirrored."""

import datetime as dt
from typing import Self

import uuid_utils.compat
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from billing.models.contract import Contract
from billing.models.ledger import LedgerEntry
from billing.models.quota import BillingPeriod
from keys.models import Partner


class InvoiceQuerySet(models.QuerySet["Invoice"]):
    def overdue(self, now: dt.datetime) -> Self:
        """Open, past the due date and the grace after it: orders of its partner are refused."""
        return self.filter(status=Invoice.Status.OPEN, grace_ends_at__lte=now)


class Invoice(models.Model):
    """Amounts are in minor units. `is_sent` is False for what no partner has been sent."""

    class Status(models.TextChoices):
        DRAFT = "draft"
        OPEN = "open"
        PAID = "paid"
        VOID = "void"
        UNCOLLECTIBLE = "uncollectible"

    class Origin(models.TextChoices):
        LOCAL = "local", "drafted here"
        STRIPE = "stripe", "Stripe's"

    id = models.UUIDField(primary_key=True, default=uuid_utils.compat.uuid7, editable=False)
    partner = models.ForeignKey(Partner, on_delete=models.PROTECT, related_name="invoices")
    period = models.ForeignKey(BillingPeriod, on_delete=models.PROTECT, null=True, related_name="invoices")
    origin = models.CharField(max_length=6, choices=Origin, default=Origin.LOCAL)
    status = models.CharField(max_length=13, choices=Status, default=Status.DRAFT)
    is_sent = models.BooleanField(default=False)
    number = models.CharField(max_length=60, blank=True)
    currency = models.CharField(max_length=3)
    subtotal = models.BigIntegerField(default=0)
    tax = models.BigIntegerField(default=0)
    total = models.BigIntegerField(default=0)
    amount_paid = models.BigIntegerField(default=0)
    amount_due = models.BigIntegerField(default=0)
    created_at = models.DateTimeField(default=timezone.now)
    finalized_at = models.DateTimeField(null=True)
    due_at = models.DateTimeField(null=True)
    paid_at = models.DateTimeField(null=True)
    # Until when orders are accepted though it is overdue; set with due_at from the contract's grace.
    grace_ends_at = models.DateTimeField(null=True)

    stripe_invoice_id = models.CharField(max_length=100, blank=True)
    hosted_invoice_url = models.URLField(max_length=1000, blank=True)
    invoice_pdf_url = models.URLField(max_length=1000, blank=True)
    last_payment_error = models.CharField(max_length=500, blank=True)
    synced_at = models.DateTimeField(null=True)

    objects = InvoiceQuerySet.as_manager()

    class Meta:
        db_table = "invoices"
        indexes = [
            models.Index(fields=["partner", "-id"], name="invoices_newest_first"),
            models.Index(
                fields=["partner", "grace_ends_at"], condition=Q(status="open"), name="invoices_open"
            ),
        ]
        permissions = [("export_invoice", "Can export invoices")]
        constraints = [
            models.UniqueConstraint(
                fields=["period", "currency"],
                condition=Q(origin="local") & ~Q(status="void"),
                name="one_local_invoice_for_each_period",
            ),
            models.UniqueConstraint(
                fields=["stripe_invoice_id"],
                condition=~Q(stripe_invoice_id=""),
                name="one_mirror_for_each_stripe_invoice",
            ),
            models.UniqueConstraint(
                fields=["number"],
                condition=Q(origin="local") & ~Q(number=""),
                name="one_local_invoice_for_each_number",
            ),
            models.CheckConstraint(
                condition=Q(status__in=["draft", "open", "paid", "void", "uncollectible"]),
                name="invoice_status_is_known",
            ),
            models.CheckConstraint(
                condition=Q(origin__in=["local", "stripe"]), name="invoice_origin_is_known"
            ),
            models.CheckConstraint(
                condition=Q(amount_paid__gte=0, amount_due__gte=0), name="invoice_sums_are_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return self.number or f"draft {str(self.pk)[-8:]}"

    def finalize(self, number: str, *, now: dt.datetime, terms: dt.timedelta, grace: dt.timedelta) -> bool:
        """draft → open, for one of our own. False in any other state, or when it is Stripe's."""
        return bool(
            Invoice.objects.filter(pk=self.pk, origin=self.Origin.LOCAL, status=self.Status.DRAFT).update(
                status=self.Status.OPEN,
                is_sent=True,
                number=number,
                finalized_at=now,
                due_at=now + terms,
                grace_ends_at=now + terms + grace,
            )
        )

    def settle(self, *, now: dt.datetime) -> bool:
        """open → paid in full, for one of our own. False in any other state, or when it is Stripe's."""
        return bool(
            Invoice.objects.filter(pk=self.pk, origin=self.Origin.LOCAL, status=self.Status.OPEN).update(
                status=self.Status.PAID, amount_paid=F("total"), amount_due=0, paid_at=now
            )
        )


class InvoiceLine(models.Model):
    """The ledger entries of one kind, item, contract version and price; an adjustment by itself."""

    id = models.UUIDField(primary_key=True, default=uuid_utils.compat.uuid7, editable=False)
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="lines")
    kind = models.CharField(max_length=12, choices=LedgerEntry.Kind)
    item = models.CharField(max_length=20, blank=True)
    contract = models.ForeignKey(Contract, on_delete=models.PROTECT, null=True, related_name="+")
    entry = models.ForeignKey(LedgerEntry, on_delete=models.PROTECT, null=True, related_name="+")
    description = models.CharField(max_length=500)
    quantity = models.BigIntegerField(default=1)
    unit_price = models.DecimalField(max_digits=24, decimal_places=12, null=True)
    amount = models.BigIntegerField(help_text="Minor units, rounded.")
    stripe_line_id = models.CharField(max_length=100, blank=True)

    class Meta:
        db_table = "invoice_lines"
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(condition=Q(quantity__gte=0), name="line_quantity_is_not_negative"),
            models.UniqueConstraint(
                fields=["stripe_line_id"],
                condition=~Q(stripe_line_id=""),
                name="one_line_for_each_stripe_line",
            ),
        ]

    def __str__(self) -> str:
        return self.description
