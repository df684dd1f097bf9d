"""A partner's billing period: what is used and reserved in it, against quotas and a budget.

The counters move by one conditional UPDATE each, so that of many orders at once no more are accepted
than fit.
"""

import datetime as dt
import uuid
from typing import Self

import uuid_utils.compat
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from keys.models import Partner


class BillingPeriodQuerySet(models.QuerySet["BillingPeriod"]):
    def at(self, partner_id: uuid.UUID, moment: dt.datetime) -> Self:
        return self.filter(partner=partner_id, starts_at__lte=moment, ends_at__gt=moment)


class BillingPeriod(models.Model):
    """From `starts_at` up to but without `ends_at`, both midnight UTC. Money is in minor units, exact."""

    id = models.UUIDField(primary_key=True, default=uuid_utils.compat.uuid7, editable=False)
    partner = models.ForeignKey(Partner, on_delete=models.PROTECT, related_name="billing_periods")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    deeds_used = models.BigIntegerField(default=0)
    deeds_reserved = models.BigIntegerField(default=0)
    requests_used = models.BigIntegerField(default=0)
    money_used = models.DecimalField(max_digits=30, decimal_places=10, default=0)
    money_reserved = models.DecimalField(max_digits=30, decimal_places=10, default=0)
    extra_deeds = models.BigIntegerField(default=0)
    extra_requests = models.BigIntegerField(default=0)
    extra_budget = models.DecimalField(max_digits=30, decimal_places=10, default=0)
    # What was told in this period, each once: "deeds:80", "requests:exceeded".
    told = models.JSONField(default=list)
    closed_at = models.DateTimeField(null=True)

    objects = BillingPeriodQuerySet.as_manager()

    class Meta:
        db_table = "billing_periods"
        permissions = [("grant_extra_quota", "Can grant extra quota for a period")]
        constraints = [
            models.UniqueConstraint(fields=["partner", "starts_at"], name="one_period_starts_at_a_time"),
            models.CheckConstraint(
                condition=Q(ends_at__gt=F("starts_at")), name="period_ends_after_it_starts"
            ),
            models.CheckConstraint(
                condition=Q(
                    deeds_used__gte=0,
                    deeds_reserved__gte=0,
                    requests_used__gte=0,
                    money_used__gte=0,
                    money_reserved__gte=0,
                    extra_deeds__gte=0,
                    extra_requests__gte=0,
                    extra_budget__gte=0,
                ),
                name="period_counts_are_not_negative",
            ),
        ]

    def __str__(self) -> str:
        last = self.ends_at - dt.timedelta(days=1)
        return f"{self.starts_at:%Y-%m-%d} to {last:%Y-%m-%d}"


class PeriodCount(models.Model):
    """How many of one item were charged in a period: where the next one stands among the tiers."""

    id = models.BigAutoField(primary_key=True)
    period = models.ForeignKey(BillingPeriod, on_delete=models.PROTECT, related_name="counts")
    item = models.CharField(max_length=20)
    quantity = models.BigIntegerField(default=0)

    class Meta:
        db_table = "period_counts"
        constraints = [
            models.UniqueConstraint(fields=["period", "item"], name="one_count_for_each_item"),
            models.CheckConstraint(condition=Q(quantity__gte=0), name="count_is_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.quantity} of {self.item}"


class Reservation(models.Model):
    """One order's place in a period's quota and budget, kept while the order is open."""

    source_id = models.UUIDField(primary_key=True, help_text="The order's deed.")
    period = models.ForeignKey(BillingPeriod, on_delete=models.PROTECT, related_name="reservations")
    item = models.CharField(max_length=20)
    amount = models.DecimalField(max_digits=30, decimal_places=10, default=0)
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        db_table = "quota_reservations"
        constraints = [
            models.CheckConstraint(condition=Q(amount__gte=0), name="reservation_is_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.item} {self.source_id}"
