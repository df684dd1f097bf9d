"""One event on its way to one endpoint, and each attempt to bring it there.

The row says what is to be done: a lost message or a dead worker delays a delivery, and loses none.
"""

import datetime as dt
from typing import Self

import uuid_utils.compat
from django.db import models
from django.db.models import Q
from django.utils import timezone

from keys.models import Partner
from webhooks.models.endpoint import Endpoint
from webhooks.models.event import Event


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    def due(self, now: dt.datetime) -> Self:
        return self.filter(status=Delivery.Status.PENDING, next_attempt_at__lte=now)

    def abandoned(self, now: dt.datetime) -> Self:
        """In the hands of a worker whose lease has run out."""
        return self.filter(status=Delivery.Status.SENDING, lease_expires_at__lte=now)

    def send_again(self, *, now: dt.datetime) -> int:
        """Settled → pending, with the whole schedule ahead; how many. One that is under way stays.

        Filter by columns of this table only: of a join the states would not be looked at again where
        another has changed them meanwhile.
        """
        return self.exclude(status=Delivery.Status.SENDING).update(
            status=Delivery.Status.PENDING, attempts=0, next_attempt_at=now, settled_at=None
        )

    def cancel(self, *, now: dt.datetime) -> int:
        """Pending → cancelled; how many. Filter as for `send_again`."""
        return self.filter(status=Delivery.Status.PENDING).update(
            status=Delivery.Status.CANCELLED, settled_at=now
        )

    def open(self) -> Self:
        return self.filter(status__in=[Delivery.Status.PENDING, Delivery.Status.SENDING])


class Delivery(models.Model):
    class Status(models.TextChoices):
        PENDING = "pending"
        SENDING = "sending"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELLED = "cancelled"

    id = models.UUIDField(primary_key=True, default=uuid_utils.compat.uuid7, editable=False)
    endpoint = models.ForeignKey(Endpoint, on_delete=models.PROTECT, related_name="deliveries")
    event = models.ForeignKey(Event, on_delete=models.PROTECT, related_name="deliveries")
    # The event's, kept here too so that a partner's list is one index.
    partner = models.ForeignKey(Partner, on_delete=models.PROTECT, related_name="webhook_deliveries")
    livemode = models.BooleanField()
    status = models.CharField(max_length=10, choices=Status, default=Status.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    created_at = models.DateTimeField(default=timezone.now)
    next_attempt_at = models.DateTimeField(default=timezone.now)
    settled_at = models.DateTimeField(null=True)
    lease = models.UUIDField(null=True)
    lease_expires_at = models.DateTimeField(null=True)
    last_status = models.PositiveSmallIntegerField(null=True)
    last_latency_ms = models.PositiveIntegerField(null=True)
    last_error = models.CharField(max_length=40, blank=True)
    last_response = models.TextField(blank=True)

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        db_table = "webhook_deliveries"
        verbose_name_plural = "deliveries"
        indexes = [
            models.Index(fields=["partner", "livemode", "-id"], name="deliveries_newest_first"),
            models.Index(fields=["partner", "livemode", "status", "-id"], name="deliveries_by_status"),
            models.Index(
                fields=["endpoint", "next_attempt_at"], condition=Q(status="pending"), name="deliveries_due"
            ),
            models.Index(fields=["endpoint"], condition=Q(status="sending"), name="deliveries_in_flight"),
            models.Index(
                fields=["created_at"],
                condition=Q(status__in=["pending", "sending"]),
                name="deliveries_oldest_open",
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["endpoint", "event"], name="one_delivery_per_endpoint_and_event"),
            models.CheckConstraint(
                condition=Q(status__in=["pending", "sending", "succeeded", "failed", "cancelled"]),
                name="delivery_status_is_known",
            ),
            models.CheckConstraint(
                condition=Q(status="sending", lease__isnull=False, lease_expires_at__isnull=False)
                | (~Q(status="sending") & Q(lease=None, lease_expires_at=None)),
                name="delivery_has_a_lease_while_sending",
            ),
            models.CheckConstraint(
                condition=Q(status__in=["pending", "sending"], settled_at=None)
                | Q(status__in=["succeeded", "failed", "cancelled"], settled_at__isnull=False),
                name="delivery_has_an_end_once_settled",
            ),
        ]

    def __str__(self) -> str:
        return str(self.pk)


class Attempt(models.Model):
    """One request to an endpoint, and what came of it. `error` is empty when it was received."""

    delivery = models.ForeignKey(Delivery, on_delete=models.PROTECT, related_name="attempt_log")
    at = models.DateTimeField()
    number = models.PositiveSmallIntegerField()
    status_code = models.PositiveSmallIntegerField(null=True)
    latency_ms = models.PositiveIntegerField()
    error = models.CharField(max_length=40, blank=True)
    response = models.TextField(blank=True)

    class Meta:
        db_table = "webhook_attempts"
        indexes = [models.Index(fields=["delivery", "id"], name="attempts_in_order")]

    def __str__(self) -> str:
        return f"{self.number}: {self.status_code or self.error}"
