"""A deed: the order as it was given, and whose it is."""

import datetime as dt
from typing import Self

import uuid_utils.compat
from django.db import models
from django.db.models import Q

from deeds.models import timeline
from deeds.models.states import MovingDeed, MovingQuerySet
from deeds.models.timeline import JsonObject
from keys.models import ApiKey, Partner


class DeedQuerySet(MovingQuerySet):
    def holding_identity(self) -> Self:
        """Those that stand for their order: neither failed, cancelled nor replaced."""
        ended = [Deed.Status.FAILED, Deed.Status.CANCELLED]
        return self.exclude(status__in=ended).filter(superseded_at=None)

    def replaceable(self) -> Self:
        """Those that a corrected deed may take the place of: nothing will happen to them by itself."""
        return self.exclude(status__in=[Deed.Status.QUEUED, Deed.Status.RENDERING]).filter(superseded_at=None)


class Deed(MovingDeed):
    class Source(models.TextChoices):
        V1 = "v1"
        V2 = "v2"
        BATCH = "batch"
        WEBHOOK = "webhook"

    id = models.UUIDField(primary_key=True, default=uuid_utils.compat.uuid7, editable=False)
    partner = models.ForeignKey(Partner, on_delete=models.PROTECT, related_name="deeds")
    api_key = models.ForeignKey(ApiKey, on_delete=models.PROTECT, related_name="+", null=True)
    livemode = models.BooleanField()
    order_id = models.CharField(max_length=100)
    deed_type = models.CharField(max_length=20)
    order = models.JSONField()
    order_sha256 = models.CharField(max_length=64)
    warnings = models.JSONField(default=list)
    source = models.CharField(max_length=10, choices=Source)
    request_id = models.CharField(max_length=128)
    reissue_of = models.ForeignKey("self", on_delete=models.PROTECT, null=True, related_name="reissues")
    superseded_at = models.DateTimeField(null=True)

    objects = DeedQuerySet.as_manager()

    class Meta:
        db_table = "external_deeds"
        indexes = [
            models.Index(fields=["partner", "livemode", "-id"], name="deeds_newest_first"),
            models.Index(fields=["partner", "livemode", "status", "-id"], name="deeds_newest_by_status"),
            models.Index(fields=["order_id", "partner", "livemode"], name="deeds_by_order_id"),
            models.Index(
                fields=["is_bulk", "livemode", "hinted_at", "next_attempt_at"],
                condition=Q(status="queued"),
                name="deeds_by_hint",
            ),
            models.Index(
                fields=["is_bulk", "livemode", "partner", "next_attempt_at"],
                condition=Q(status="queued"),
                name="deeds_in_line",
            ),
            models.Index(
                fields=["partner", "claimed_at"], condition=Q(claimed_at__isnull=False), name="deeds_served"
            ),
            models.Index(
                fields=["lease_expires_at"], condition=Q(status="rendering"), name="deeds_rendering"
            ),
            models.Index(
                fields=["pdf_checked_at"],
                condition=Q(status="completed", pdf_deleted_at=None),
                name="deeds_with_a_pdf_by_check",
            ),
            models.Index(
                fields=["completed_at"],
                condition=Q(status="completed", pdf_deleted_at=None),
                name="deeds_with_a_pdf_by_age",
            ),
            models.Index(
                fields=["completed_at"],
                condition=Q(pdf_deleted_at__isnull=False) & ~Q(pdf_name=""),
                name="deeds_half_deleted",
            ),
            models.Index(
                fields=["completed_at"],
                condition=Q(status="completed", livemode=True),
                name="deeds_live_completed",
            ),
            models.Index(fields=["held_at"], condition=Q(held_at__isnull=False), name="deeds_held"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["partner", "livemode", "order_id", "deed_type"],
                condition=Q(superseded_at=None) & ~Q(status__in=["failed", "cancelled"]),
                name="one_live_deed_per_order",
            ),
            models.CheckConstraint(
                condition=Q(status__in=["queued", "rendering", "completed", "failed", "cancelled"]),
                name="deed_status_is_known",
            ),
            models.CheckConstraint(
                condition=Q(status="rendering", lease__isnull=False, lease_expires_at__isnull=False)
                | (~Q(status="rendering") & Q(lease=None, lease_expires_at=None)),
                name="deed_has_a_lease_while_rendering",
            ),
            models.CheckConstraint(
                condition=(
                    Q(status="completed", completed_at__isnull=False, pdf_bytes__gt=0)
                    & (~Q(pdf_name="") | Q(pdf_deleted_at__isnull=False))
                    & ~Q(pdf_sha256="")
                )
                | (
                    ~Q(status="completed")
                    & Q(completed_at=None, pdf_name="", pdf_sha256="", pdf_deleted_at=None)
                ),
                name="deed_has_a_pdf_once_completed",
            ),
            models.CheckConstraint(
                condition=(Q(status="failed") & ~Q(failure_code=""))
                | (~Q(status="failed") & Q(failure_code="")),
                name="deed_has_a_failure_once_failed",
            ),
            models.CheckConstraint(
                condition=Q(held_at=None, hold_reason="")
                | (Q(held_at__isnull=False, pdf_deleted_at=None) & ~Q(hold_reason="")),
                name="deed_on_hold_keeps_its_pdf",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.order_id} ({self.deed_type})"


def first_entry(now: dt.datetime) -> JsonObject:
    """The timeline's entry of a deed that was just accepted."""
    return timeline.entry(Deed.Status.QUEUED, now)
