"""A partner: who orders, and whether it may."""

from typing import Final

import uuid_utils.compat
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

# A hundred years; what is much longer is beyond the calendar when it is added to a day.
MAX_KEY_AGE_DAYS: Final = 36_500


class Partner(models.Model):
    """A title or escrow company, or the software that orders for it."""

    class Status(models.TextChoices):
        ACTIVE = "active"
        SUSPENDED = "suspended"

    id = models.UUIDField(primary_key=True, default=uuid_utils.compat.uuid7, editable=False)
    name = models.CharField(max_length=200, unique=True)
    contact_email = models.EmailField(blank=True)
    status = models.CharField(max_length=20, choices=Status, default=Status.ACTIVE)
    monthly_deed_quota = models.PositiveIntegerField(
        null=True, blank=True, help_text="Live deeds a billing period; empty for no bound."
    )
    monthly_request_quota = models.PositiveIntegerField(
        null=True, blank=True, help_text="Requests a billing period; empty for no bound."
    )
    budget_cap = models.DecimalField(
        max_digits=12,
        decimal_places=2,
        null=True,
        blank=True,
        help_text="Money a billing period, in the contract's currency; empty for no bound.",
    )
    key_max_age_days = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MaxValueValidator(MAX_KEY_AGE_DAYS)],
        help_text="Keys older than this are due for rotation; empty for no policy.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=["active", "suspended"]), name="partner_status_is_known"
            ),
            models.CheckConstraint(
                condition=Q(budget_cap=None) | Q(budget_cap__gte=0), name="partner_budget_is_not_negative"
            ),
            models.CheckConstraint(
                condition=Q(key_max_age_days=None) | Q(key_max_age_days__gte=1),
                name="partner_key_age_is_positive",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Says what the constraints hold in words. Raises ValidationError by field."""
        errors = {}
        if not self.name.isprintable():
            errors["name"] = ["Control characters can't stand here: a name is shown on terminals too."]
        if self.budget_cap is not None and self.budget_cap < 0:
            errors["budget_cap"] = ["It can't be negative; 0 stops what costs, empty is no bound."]
        if self.key_max_age_days is not None and self.key_max_age_days < 1:
            errors["key_max_age_days"] = ["It is a day at the least; empty is no policy."]
        if errors:
            raise ValidationError(errors)
