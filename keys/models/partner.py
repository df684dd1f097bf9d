"""A partner: who orders, and whether it may."""

import uuid_utils.compat
from django.db import models
from django.db.models import Q
from django.utils import timezone


class Partner(models.Model):
    """A title or escrow company, or the software that orders for it."""

    class Status(models.TextChoices):
        ACTIVE = "active"
        SUSPENDED = "suspended"

    id = models.UUIDField(primary_key=True, default=uuid_utils.compat.uuid7, editable=False)
    name = models.CharField(max_length=200, unique=True)
    contact_email = models.EmailField(blank=True)
    status = models.CharField(max_length=20, choices=Status, default=Status.ACTIVE)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=["active", "suspended"]), name="partner_status_is_known"
            ),
        ]

    def __str__(self) -> str:
        return self.name
