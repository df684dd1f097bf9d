"""What a partner agreed to pay: a version from a day on, and its prices.

A version lasts until the next one of its partner starts (or its own last day), so that versions can't
overlap. What was agreed is never edited, which a trigger sees to: a change is a new version, and what
was charged under an earlier one keeps its price.
"""

import datetime as dt
import uuid
from collections.abc import Iterable
from typing import Final, Self

import uuid_utils.compat
from django.db import models
from django.db.models import Q
from django.utils import timezone

from keys.models import Partner

ANY_DEED: Final = "deed"
REISSUE: Final = "reissue"
REQUEST: Final = "request"


def in_force_of(versions: Iterable["Contract"], day: dt.date) -> "Contract | None":
    """Of one partner's standing versions, in any order, the one of a day: as `Contract.objects.in_force`.

    `billing.places` says the same in SQL; a test holds the three to each other.
    """
    started = (version for version in versions if version.starts_on <= day)
    latest = max(started, key=lambda version: version.starts_on, default=None)
    return latest if latest is not None and latest.covers(day) else None


class ContractQuerySet(models.QuerySet["Contract"]):
    def standing(self) -> Self:
        return self.filter(withdrawn_at=None)

    def current(self, partner_id: uuid.UUID, day: dt.date) -> "list[Contract]":
        """The version of a day, and the one that comes next."""
        coming = self.standing().filter(partner=partner_id, starts_on__gt=day).order_by("starts_on")
        found = [self.in_force(partner_id, day), coming.first()]
        return [contract for contract in found if contract is not None]

    def in_force(self, partner_id: uuid.UUID, day: dt.date) -> "Contract | None":
        """The version of a day (UTC), with its prices, or None where nothing is agreed."""
        started = self.standing().filter(partner=partner_id, starts_on__lte=day)
        latest = started.order_by("-starts_on").prefetch_related("prices").first()
        return latest if latest is not None and latest.covers(day) else None


class Contract(models.Model):
    class Model(models.TextChoices):
        FLAT = "flat", "flat: a fee a period"
        PER_DEED = "per_deed", "per deed: a price for each"
        HYBRID = "hybrid", "hybrid: a fee, deeds included, a price for more"
        PER_REQUEST = "per_request", "per request: a price for each 1,000"

    class QuotaMode(models.TextChoices):
        HARD = "hard", "hard: what is over is refused"
        SOFT = "soft", "soft: what is over is accepted, and told"

    id = models.UUIDField(primary_key=True, default=uuid_utils.compat.uuid7, editable=False)
    partner = models.ForeignKey(Partner, on_delete=models.PROTECT, related_name="contracts")
    version = models.PositiveIntegerField(editable=False)
    model = models.CharField(max_length=12, choices=Model)
    currency = models.CharField(max_length=3, default="USD", help_text="ISO 4217.")
    starts_on = models.DateField(help_text="The first day (UTC).")
    ends_on = models.DateField(null=True, blank=True, help_text="The last day; empty for an open end.")
    anchor_day = models.PositiveSmallIntegerField(
        default=1, help_text="The day a period starts; in a shorter month its last day."
    )
    payment_terms_days = models.PositiveSmallIntegerField(default=30)
    grace_days = models.PositiveSmallIntegerField(
        default=14, help_text="How long after an invoice's due date orders are still accepted."
    )
    base_fee = models.DecimalField(
        max_digits=14, decimal_places=4, default=0, help_text="A period, in the currency's main unit."
    )
    quota_mode = models.CharField(max_length=4, choices=QuotaMode, default=QuotaMode.HARD)
    cost_units = models.JSONField(
        default=dict,
        db_default={},
        blank=True,
        help_text='Units of deed types and requests, such as {"grant": 12, "POST /v2/deeds/batch": 5}. '
        "What is not named costs what it costs without a contract.",
    )
    notes = models.TextField(blank=True)
    author = models.CharField(max_length=150, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    withdrawn_at = models.DateTimeField(null=True, editable=False)

    stripe_product_id = models.CharField(max_length=100, blank=True, editable=False)
    stripe_base_price_id = models.CharField(max_length=100, blank=True, editable=False)
    # Not written any more: `stripe_subscription` says it.
    stripe_subscription_id = models.CharField(max_length=100, blank=True, editable=False)
    provisioned_at = models.DateTimeField(null=True, editable=False)

    objects = ContractQuerySet.as_manager()

    class Meta:
        db_table = "contracts"
        constraints = [
            models.UniqueConstraint(fields=["partner", "version"], name="contract_versions_are_counted"),
            models.UniqueConstraint(
                fields=["partner", "starts_on"],
                condition=Q(withdrawn_at=None),
                name="one_contract_starts_on_a_day",
            ),
            models.CheckConstraint(
                condition=Q(model__in=["flat", "per_deed", "hybrid", "per_request"]),
                name="contract_model_is_known",
            ),
            models.CheckConstraint(
                condition=Q(quota_mode__in=["hard", "soft"]), name="contract_quota_mode_is_known"
            ),
            models.CheckConstraint(
                condition=Q(currency__regex=r"^[A-Z]{3}$"), name="contract_currency_is_iso_4217"
            ),
            models.CheckConstraint(
                condition=Q(anchor_day__gte=1, anchor_day__lte=31), name="contract_anchor_is_a_day"
            ),
            models.CheckConstraint(condition=Q(base_fee__gte=0), name="contract_fee_is_not_negative"),
            models.CheckConstraint(
                condition=Q(ends_on=None) | Q(ends_on__gte=models.F("starts_on")),
                name="contract_ends_after_it_starts",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.partner.name}, version {self.version} from {self.starts_on}"

    @property
    def is_soft(self) -> bool:
        """Whether what is over a quota or the budget is accepted, and told."""
        return self.quota_mode == self.QuotaMode.SOFT

    def covers(self, day: dt.date) -> bool:
        """Whether the day lies within its own first and last; a later version may still have taken over."""
        return self.starts_on <= day and (self.ends_on is None or day <= self.ends_on)


class Price(models.Model):
    """What one more of an item costs, after so many of it in the period.

    Items are deed types, `deed` (any type without a price of its own), `reissue` (any deed that replaces
    one; without it a reissue costs what its type costs) and `request` (here the price is for 1,000).
    Rows of one item are its tiers, graduated; the first starts after 0. An included quantity is a first
    tier at 0.
    """

    id = models.UUIDField(primary_key=True, default=uuid_utils.compat.uuid7, editable=False)
    contract = models.ForeignKey(Contract, on_delete=models.PROTECT, related_name="prices")
    item = models.CharField(max_length=20)
    after_quantity = models.PositiveIntegerField(
        default=0, help_text="This price is for what comes after so many in the period."
    )
    unit_price = models.DecimalField(
        max_digits=18, decimal_places=8, help_text="In the currency's main unit; parts of a cent are fine."
    )
    stripe_price_id = models.CharField(max_length=100, blank=True, editable=False)
    stripe_meter_id = models.CharField(max_length=100, blank=True, editable=False)

    class Meta:
        db_table = "contract_prices"
        ordering = ["item", "after_quantity"]
        constraints = [
            models.UniqueConstraint(
                fields=["contract", "item", "after_quantity"], name="one_price_for_each_tier"
            ),
            models.CheckConstraint(condition=Q(unit_price__gte=0), name="price_is_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.item} after {self.after_quantity}: {self.unit_price}"
