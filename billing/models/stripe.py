"""What we must remember of Stripe: who is which customer, what a contract became, which webhooks came.

A lane is one customer's one meter. Its lease keeps to one call at a time, as Stripe wants it.
"""

import datetime as dt
import uuid
from typing import Any, Self

import uuid_utils.compat
from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone

from billing.models.contract import Contract
from billing.models.invoice import Invoice
from keys.models import Partner


class StripeCustomer(models.Model):
    """A partner's customer at Stripe, and the payment method that Stripe shows as its default."""

    partner = models.OneToOneField(
        Partner, on_delete=models.PROTECT, primary_key=True, related_name="stripe_customer"
    )
    customer_id = models.CharField(max_length=100, unique=True)
    livemode = models.BooleanField()
    is_deleted = models.BooleanField(default=False)
    # How many customers this partner had before; a deleted one must not come back by its idempotency key.
    generation = models.PositiveSmallIntegerField(default=0)
    # Meter events before this went to an earlier customer.
    connected_at = models.DateTimeField(default=timezone.now)
    card_brand = models.CharField(max_length=40, blank=True)
    card_last4 = models.CharField(max_length=4, blank=True)
    card_expires = models.CharField(max_length=7, blank=True)
    updated_at = models.DateTimeField(default=timezone.now)

    class Meta:
        db_table = "stripe_customers"

    def __str__(self) -> str:
        return self.customer_id

    @property
    def has_payment_method(self) -> bool:
        return bool(self.card_brand)


class StripeSubscription(models.Model):
    """A contract version at Stripe: what happens from `starts_at` until `ends_at` is billed by it."""

    contract = models.OneToOneField(
        Contract, on_delete=models.PROTECT, primary_key=True, related_name="stripe_subscription"
    )
    subscription_id = models.CharField(max_length=100, unique=True)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(null=True)
    fetched_at = models.DateTimeField(
        default=timezone.now, db_default=Now(), help_text="When Stripe was asked for what is shown."
    )

    class Meta:
        db_table = "stripe_subscriptions"

    def __str__(self) -> str:
        return self.subscription_id

    @classmethod
    def note_end(cls, subscription_id: str, ends_at: dt.datetime | None, *, fetched_at: dt.datetime) -> None:
        """What Stripe said of its end; nothing where a later word of Stripe's is known."""
        known = cls.objects.filter(subscription_id=subscription_id, fetched_at__lte=fetched_at)
        known.update(ends_at=ends_at, fetched_at=fetched_at)

    def covers(self, moment: dt.datetime) -> bool:
        return self.starts_at <= moment and (self.ends_at is None or moment < self.ends_at)


class ContractAtStripe(Contract):
    """A contract as staff brings it to Stripe; no table of its own."""

    class Meta:
        proxy = True
        verbose_name_plural = "contracts at Stripe"
        permissions = [("provision_contract", "Can bring a contract to Stripe")]


class StripeInvoice(models.Model):
    """What Stripe's invoice has beyond any invoice: what it covers, and whether we hold it back.

    It is held from the moment we hear of its draft until all of its period has reached Stripe.
    """

    invoice = models.OneToOneField(
        Invoice, on_delete=models.PROTECT, primary_key=True, related_name="at_stripe"
    )
    subscription_id = models.CharField(max_length=100, blank=True)
    billing_reason = models.CharField(max_length=40, blank=True)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    is_held = models.BooleanField(default=False)
    note = models.CharField(max_length=500, blank=True, help_text="What a held one waits for.")
    fetched_at = models.DateTimeField(help_text="When Stripe was asked for what is shown.")

    class Meta:
        db_table = "stripe_invoices"

    def __str__(self) -> str:
        return str(self.invoice_id)


class StripeLane(models.Model):
    """Entries of a lane are sent in order. After a fault all of it waits until `next_attempt_at`."""

    id = models.BigAutoField(primary_key=True)
    partner = models.ForeignKey(Partner, on_delete=models.PROTECT, related_name="stripe_lanes")
    item = models.CharField(max_length=20, blank=True, help_text="Empty for invoice items.")
    lease = models.UUIDField(null=True)
    lease_expires_at = models.DateTimeField(null=True)
    next_attempt_at = models.DateTimeField(default=timezone.now)
    failures = models.PositiveIntegerField(default=0)
    last_error = models.CharField(max_length=500, blank=True)

    class Meta:
        db_table = "stripe_lanes"
        constraints = [
            models.UniqueConstraint(fields=["partner", "item"], name="one_lane_for_each_meter"),
            models.CheckConstraint(
                condition=Q(lease=None, lease_expires_at=None)
                | Q(lease__isnull=False, lease_expires_at__isnull=False),
                name="lane_lease_has_an_end",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.partner_id} {self.item or 'invoice items'}"

    def claim(self, *, now: dt.datetime, is_urgent: bool) -> uuid.UUID | None:
        """A lease, or None while another has it or the lane pauses. What is urgent does not wait."""
        lease = uuid_utils.compat.uuid7()
        free = StripeLane.objects.filter(Q(lease=None) | Q(lease_expires_at__lte=now), pk=self.pk)
        if not is_urgent:
            free = free.filter(next_attempt_at__lte=now)
        return lease if free.update(lease=lease, lease_expires_at=_lease_end(now)) else None

    def renew(self, lease: uuid.UUID, *, now: dt.datetime) -> bool:
        """False when the lease was lost, and the lane must be left."""
        held = StripeLane.objects.filter(pk=self.pk, lease=lease)
        return bool(held.update(lease_expires_at=_lease_end(now)))

    def leave(self, lease: uuid.UUID) -> None:
        """After all went well, as far as it went."""
        self._leave(lease, failures=0, last_error="")

    def pause(self, lease: uuid.UUID, *, until: dt.datetime, error: str) -> None:
        self._leave(lease, failures=F("failures") + 1, next_attempt_at=until, last_error=error[:500])

    def _leave(self, lease: uuid.UUID, **changes: Any) -> None:
        held = StripeLane.objects.filter(pk=self.pk, lease=lease)
        held.update(lease=None, lease_expires_at=None, **changes)


class StripeEventQuerySet(models.QuerySet["StripeEvent"]):
    def waiting(self, now: dt.datetime) -> Self:
        return self.filter(state=StripeEvent.State.WAITING, next_attempt_at__lte=now)


class StripeEvent(models.Model):
    """A webhook as it came, stored before anything is done with it. Its id is Stripe's."""

    class State(models.TextChoices):
        WAITING = "waiting"
        DONE = "done"
        IGNORED = "ignored"

    event_id = models.CharField(max_length=100, primary_key=True)
    kind = models.CharField(max_length=100)
    livemode = models.BooleanField()
    object_id = models.CharField(max_length=100, blank=True)
    customer_id = models.CharField(max_length=100, blank=True)
    body = models.TextField()
    created_at = models.DateTimeField(help_text="At Stripe.")
    received_at = models.DateTimeField(default=timezone.now)
    state = models.CharField(max_length=8, choices=State, default=State.WAITING)
    note = models.CharField(max_length=500, blank=True, help_text="Why it is ignored, or still waits.")
    attempts = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField(default=timezone.now)
    settled_at = models.DateTimeField(null=True)

    objects = StripeEventQuerySet.as_manager()

    class Meta:
        db_table = "stripe_events"
        indexes = [
            models.Index(
                fields=["next_attempt_at"], condition=Q(state="waiting"), name="stripe_events_waiting"
            ),
            models.Index(fields=["-received_at"], name="stripe_events_newest_first"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["waiting", "done", "ignored"]), name="stripe_event_state_is_known"
            ),
            models.CheckConstraint(
                condition=Q(state="waiting", settled_at=None)
                | (~Q(state="waiting") & Q(settled_at__isnull=False)),
                name="stripe_event_is_settled_at_a_time",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.event_id}"

    def settle(self, state: str, *, now: dt.datetime, note: str = "") -> bool:
        """waiting → done or ignored. False when another worker was first."""
        waiting = StripeEvent.objects.filter(pk=self.pk, state=self.State.WAITING)
        return bool(waiting.update(state=state, settled_at=now, note=note[:500]))

    def put_off(self, *, until: dt.datetime, note: str) -> None:
        waiting = StripeEvent.objects.filter(pk=self.pk, state=self.State.WAITING)
        waiting.update(attempts=F("attempts") + 1, next_attempt_at=until, note=note[:500])


def _lease_end(now: dt.datetime) -> dt.datetime:
    return now + dt.timedelta(seconds=settings.STRIPE_LANE_LEASE_SECONDS)
