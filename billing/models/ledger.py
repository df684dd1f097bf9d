"""The ledger: one row for each thing that was charged or credited, only ever added to.

A trigger refuses DELETE, TRUNCATE and an UPDATE of anything but the `sync_…` columns, which say what
Stripe, the ledger's mirror, answered. A correction is another entry.
"""

import datetime as dt
from typing import Final, Self

import uuid_utils.compat
from django.db import models
from django.db.models import DateTimeField, ExpressionWrapper, F, Q, Sum
from django.db.models.functions import Greatest, Least
from django.utils import timezone

from billing.models.contract import Contract
from billing.models.quota import BillingPeriod
from keys.models import Partner

# Beyond any real amount or quantity; a slip of a few zeros is refused.
MAX_QUANTITY = 10**10
MAX_AMOUNT = 10**13
# Stripe's ids of invoice items; what is metered has the entry's own id there.
ITEM_PREFIX: Final = "ii_"


class LedgerEntryQuerySet(models.QuerySet["LedgerEntry"]):
    def pending(self) -> Self:
        return self.filter(sync_state=LedgerEntry.SyncState.PENDING)

    def of_partners_at_stripe(self) -> Self:
        return self.filter(partner__stripe_customer__is_deleted=False)

    def metered(self) -> Self:
        """What Stripe counts: all but corrections, fees and what is carried over."""
        return self.filter(kind__in=METERED)

    def counted(self) -> Self:
        """What the partner's present customer at Stripe has as meter events."""
        sent = self.metered().filter(
            sync_state=LedgerEntry.SyncState.ACCEPTED,
            synced_at__gte=F("partner__stripe_customer__connected_at"),
        )
        return sent.exclude(stripe_identifier__startswith=ITEM_PREFIX)

    def of_cycle(self, subscription_id: str, start: dt.datetime, end: dt.datetime) -> Self:
        """The usage that a subscription's invoice of [start, end) is about, sent or not."""
        own = self.metered().filter(contract__stripe_subscription__subscription_id=subscription_id)
        return own.between(start, end)

    def between(self, start: dt.datetime, end: dt.datetime) -> Self:
        """Those whose moment at Stripe (`billing.sending.timestamp_of`) lies in [start, end)."""
        moments = self.annotate(stripe_moment=stripe_moment())
        return moments.filter(stripe_moment__gte=start, stripe_moment__lt=end)

    def quantity(self) -> int:
        return int(self.aggregate(sum=Sum("quantity"))["sum"] or 0)


class LedgerEntry(models.Model):
    class Kind(models.TextChoices):
        DEED = "deed"
        REQUESTS = "requests"
        BASE_FEE = "base_fee"
        ADJUSTMENT = "adjustment"
        CREDIT = "credit"
        CARRY_OVER = "carry_over"

    class SyncState(models.TextChoices):
        PENDING = "pending"
        ACCEPTED = "accepted"
        REJECTED = "rejected"
        NOT_BILLABLE = "not_billable", "not for Stripe"

    id = models.UUIDField(primary_key=True, default=uuid_utils.compat.uuid7, editable=False)
    partner = models.ForeignKey(Partner, on_delete=models.PROTECT, related_name="ledger_entries")
    period = models.ForeignKey(BillingPeriod, on_delete=models.PROTECT, related_name="entries")
    contract = models.ForeignKey(Contract, on_delete=models.PROTECT, null=True, related_name="entries")
    kind = models.CharField(max_length=12, choices=Kind)
    source_kind = models.CharField(max_length=20, help_text="What kind of thing is charged.")
    source_id = models.CharField(max_length=100, help_text="Which one; for a deed its id.")
    item = models.CharField(max_length=20, blank=True, help_text="The contract's item it was priced as.")
    deed_type = models.CharField(max_length=20, blank=True)
    quantity = models.BigIntegerField(default=1)
    unit_price = models.DecimalField(max_digits=24, decimal_places=12, default=0)
    # Exact, in minor units, with their fractions; it is rounded where an invoice's line is made.
    amount = models.DecimalField(max_digits=30, decimal_places=10)
    # Rounded by itself: for people, and for what Stripe bills as an item. An invoice's line is rounded once
    # for all of its entries, so these don't add up to it.
    amount_minor = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    is_priced = models.BooleanField(default=True, help_text="False where no contract said what it costs.")
    occurred_at = models.DateTimeField(default=timezone.now)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    reason = models.CharField(max_length=500, blank=True)
    author = models.CharField(max_length=150, blank=True)

    stripe_identifier = models.CharField(max_length=100, blank=True)
    sync_state = models.CharField(max_length=12, choices=SyncState, default=SyncState.PENDING)
    synced_at = models.DateTimeField(null=True)
    sync_error = models.CharField(max_length=500, blank=True)
    sync_attempts = models.PositiveIntegerField(default=0)
    # When Stripe was first asked without us knowing what became of it; else when it was asked last.
    next_sync_at = models.DateTimeField(default=timezone.now)

    objects = LedgerEntryQuerySet.as_manager()

    class Meta:
        db_table = "ledger_entries"
        verbose_name_plural = "ledger entries"
        permissions = [
            ("adjust_ledgerentry", "Can enter an adjustment or a credit"),
            ("export_ledgerentry", "Can export the ledger"),
        ]
        indexes = [
            models.Index(fields=["partner", "id"], name="ledger_of_partner"),
            models.Index(fields=["period", "kind", "item"], name="ledger_of_period"),
            models.Index(fields=["partner", "occurred_at"], name="ledger_by_time"),
            models.Index(fields=["next_sync_at"], condition=Q(sync_state="pending"), name="ledger_unsynced"),
            models.Index(fields=["partner"], condition=Q(is_priced=False), name="ledger_unpriced"),
            models.Index(fields=["partner"], condition=Q(sync_state="rejected"), name="ledger_rejected"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["source_kind", "source_id"], name="one_charge_per_source"),
            models.CheckConstraint(
                condition=Q(kind__in=["deed", "requests", "base_fee", "adjustment", "credit", "carry_over"]),
                name="ledger_kind_is_known",
            ),
            models.CheckConstraint(
                condition=Q(quantity__gte=1, quantity__lte=MAX_QUANTITY), name="ledger_quantity_is_sane"
            ),
            models.CheckConstraint(
                condition=Q(amount__gte=-MAX_AMOUNT, amount__lte=MAX_AMOUNT), name="ledger_amount_is_sane"
            ),
            models.CheckConstraint(condition=Q(unit_price__gte=0), name="ledger_price_is_not_negative"),
            models.CheckConstraint(
                condition=(Q(kind__in=["deed", "requests", "base_fee"]) & Q(amount__gte=0))
                | (Q(kind="credit") & Q(amount__lt=0))
                | Q(kind__in=["adjustment", "carry_over"]),
                name="ledger_sign_fits_its_kind",
            ),
            models.CheckConstraint(
                condition=~Q(kind__in=["adjustment", "credit"]) | (~Q(reason="") & ~Q(author="")),
                name="ledger_correction_says_why_and_who",
            ),
            models.CheckConstraint(
                condition=Q(sync_state__in=["pending", "accepted", "rejected", "not_billable"]),
                name="ledger_sync_state_is_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.source_id}"


METERED: Final = (LedgerEntry.Kind.DEED, LedgerEntry.Kind.REQUESTS)


def stripe_moment() -> Least:
    """The moment that Stripe is told (`billing.sending.timestamp_of`), of each entry of a query."""
    last = ExpressionWrapper(F("period__ends_at") - dt.timedelta(seconds=1), output_field=DateTimeField())
    return Least(Greatest("occurred_at", "period__starts_at"), last)
