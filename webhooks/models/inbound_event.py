"""A request of a source, as it came: stored before anything is done with it, and never twice.

States move by conditional UPDATE. What could not become an order stays, with its reason, until staff
have corrected and replayed it. The bodies hold people's names: they stand encrypted, and are emptied
after a while; what is left of an event is enough to know it again.
"""

import datetime as dt
from typing import Any, Self

import uuid_utils.compat
from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from deeds.models import Deed
from partner_api.ops.vault import EncryptedBinaryField, EncryptedTextField
from webhooks.models.source import Source


class InboundEventQuerySet(models.QuerySet["InboundEvent"]):
    def ready(self, now: dt.datetime) -> Self:
        """Received, and not postponed any longer."""
        return self.filter(Q(not_before=None) | Q(not_before__lte=now), status=InboundEvent.Status.RECEIVED)

    def waiting(self, now: dt.datetime) -> Self:
        """Ready, or left by a worker that died."""
        return self.ready(now) | self.filter(status=InboundEvent.Status.PROCESSING, lease_expires_at__lte=now)

    def set_aside_for(self, code: str) -> Self:
        """Those that can be replayed."""
        status = InboundEvent.Status.NEEDS_ATTENTION
        return self.filter(status=status, reason_code=code, body__isnull=False)

    def outdated(self, before: dt.datetime) -> Self:
        """Settled before then, and its body is still there."""
        return self.filter(settled_at__lt=before, body__isnull=False)

    def empty(self) -> int:
        """Takes away all that quotes what came; identity, deed and the reason's code stay."""
        return self.update(body=None, corrected_body="", reason="", errors=[])


class InboundEvent(models.Model):
    class Status(models.TextChoices):
        RECEIVED = "received"
        PROCESSING = "processing"
        PROCESSED = "processed"
        NEEDS_ATTENTION = "needs_attention", "needs attention"

    id = models.UUIDField(primary_key=True, default=uuid_utils.compat.uuid7, editable=False)
    source = models.ForeignKey(Source, on_delete=models.PROTECT, related_name="events")
    identity = models.CharField(max_length=210)
    # None once it was kept long enough.
    body = EncryptedBinaryField(null=True)
    headers = models.JSONField()
    request_id = models.CharField(max_length=128)
    received_at = models.DateTimeField(default=timezone.now)

    status = models.CharField(max_length=20, choices=Status, default=Status.RECEIVED)
    lease = models.UUIDField(null=True)
    lease_expires_at = models.DateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    # Of one that was refused for now: until when, and by which code. Processed or set aside it has neither.
    not_before = models.DateTimeField(null=True)
    waits_for = models.CharField(max_length=40, blank=True, default="", db_default="")
    settled_at = models.DateTimeField(null=True)
    corrected_body = EncryptedTextField(blank=True)
    deed = models.ForeignKey(Deed, on_delete=models.PROTECT, null=True, related_name="inbound_events")
    result_status = models.PositiveSmallIntegerField(null=True)
    reason_code = models.CharField(max_length=40, blank=True)
    reason = models.TextField(blank=True)
    errors = models.JSONField(default=list)

    objects = InboundEventQuerySet.as_manager()

    class Meta:
        db_table = "webhook_inbound_events"
        indexes = [
            models.Index(
                fields=["received_at"],
                condition=Q(status__in=["received", "processing"]),
                name="inbound_waiting",
            ),
            models.Index(fields=["status", "-id"], name="inbound_by_status"),
            models.Index(fields=["settled_at"], condition=Q(body__isnull=False), name="inbound_with_body"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["source", "identity"], name="one_inbound_event_per_identity"),
            models.CheckConstraint(
                condition=Q(status="processing", lease__isnull=False, lease_expires_at__isnull=False)
                | (~Q(status="processing") & Q(lease=None, lease_expires_at=None)),
                name="inbound_has_a_lease_while_processing",
            ),
            models.CheckConstraint(
                condition=(Q(status="needs_attention") & ~Q(reason_code=""))
                | (~Q(status="needs_attention") & Q(reason_code="")),
                name="inbound_has_a_reason_for_attention",
            ),
            models.CheckConstraint(
                condition=Q(status="processed", deed__isnull=False) | ~Q(status="processed"),
                name="inbound_has_a_deed_once_processed",
            ),
        ]

    def __str__(self) -> str:
        return self.identity

    @property
    def text(self) -> bytes:
        """What is read: the correction where there is one, else the bytes as they came."""
        return self.corrected_body.encode() if self.corrected_body else bytes(self.body or b"")

    def claim(self, *, now: dt.datetime) -> bool:
        """Whether this worker got it."""
        lease = uuid_utils.compat.uuid7()
        claimed = InboundEvent.objects.waiting(now).filter(pk=self.pk)
        changed = claimed.update(
            status=self.Status.PROCESSING,
            lease=lease,
            lease_expires_at=now + dt.timedelta(seconds=settings.WEBHOOKS_LEASE_SECONDS),
            attempts=F("attempts") + 1,
        )
        if changed:
            self.lease, self.attempts = lease, self.attempts + 1
        return bool(changed)

    def finish(self, deed: Deed, *, now: dt.datetime) -> bool:
        """processing → processed. False when the lease was lost."""
        return self._leave(self.Status.PROCESSED, now, deed=deed, result_status=202)

    def postpone(self, *, until: dt.datetime, code: str) -> bool:
        """processing → received. False when the lease was lost.

        Its worker lived to say so, so that attempts count anew.
        """
        return self._leave(self.Status.RECEIVED, None, attempts=0, not_before=until, waits_for=code)

    def set_aside(
        self, *, now: dt.datetime, status: int, code: str, reason: str, errors: list[dict[str, Any]]
    ) -> bool:
        """processing → needs attention. False when the lease was lost. `status` is HTTP's."""
        return self._leave(
            self.Status.NEEDS_ATTENTION,
            now,
            result_status=status,
            reason_code=code,
            reason=reason,
            errors=errors,
        )

    def replay(self, *, corrected_body: str) -> bool:
        """needs attention → received, with another text where one is given.

        False in any other state, or when the body was kept long enough and is gone.
        """
        waiting = InboundEvent.objects.filter(
            pk=self.pk, status=self.Status.NEEDS_ATTENTION, body__isnull=False
        )
        return bool(
            waiting.update(
                status=self.Status.RECEIVED,
                corrected_body=corrected_body,
                attempts=0,
                not_before=None,
                waits_for="",
                settled_at=None,
                result_status=None,
                reason_code="",
                reason="",
                errors=[],
            )
        )

    def _leave(self, status: str, settled_at: dt.datetime | None, **fields: Any) -> bool:
        held = InboundEvent.objects.filter(pk=self.pk, status=self.Status.PROCESSING, lease=self.lease)
        free = {"lease": None, "lease_expires_at": None, "not_before": None, "waits_for": ""}
        return bool(held.update(**{**free, "status": status, "settled_at": settled_at, **fields}))
