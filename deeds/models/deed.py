"""A deed: the order as it was given, and the states it goes through.

States move by conditional UPDATE, each in one statement that also writes the timeline, so that of
two processes with the same deed one wins and the other sees that it lost.
"""

import datetime as dt
import uuid
from typing import Any, Self

import uuid_utils.compat
from django.conf import settings
from django.db import models
from django.db.models import F, Func, Q, Value
from django.utils import timezone

from deeds.models.keeping import KeptPdf, KeptQuerySet
from keys.models import ApiKey, Partner

JsonObject = dict[str, Any]


class DeedQuerySet(KeptQuerySet):
    def claimable(self, now: dt.datetime) -> Self:
        """Queued, and due."""
        return self.filter(status=Deed.Status.QUEUED, next_attempt_at__lte=now)

    def unhinted(self, since: dt.datetime) -> Self:
        """Those whose last message to the workers is older than `since`, or was never sent."""
        return self.filter(Q(hinted_at=None) | Q(hinted_at__lte=since))

    def abandoned(self, now: dt.datetime) -> Self:
        """In the hands of a worker whose lease has run out."""
        return self.filter(status=Deed.Status.RENDERING, lease_expires_at__lte=now)

    def holding_identity(self) -> Self:
        """Those that stand for their order: neither failed, cancelled nor replaced."""
        return self.exclude(status__in=[Deed.Status.FAILED, Deed.Status.CANCELLED]).filter(superseded_at=None)


class Deed(KeptPdf):
    class Status(models.TextChoices):
        QUEUED = "queued"
        RENDERING = "rendering"
        COMPLETED = "completed"
        FAILED = "failed"
        CANCELLED = "cancelled"

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

    status = models.CharField(max_length=10, choices=Status, default=Status.QUEUED)
    timeline = models.JSONField(default=list)
    created_at = models.DateTimeField(default=timezone.now)
    completed_at = models.DateTimeField(null=True)
    next_attempt_at = models.DateTimeField(default=timezone.now)
    hinted_at = models.DateTimeField(null=True)
    # Waits in the line of batches, behind no order that came by itself.
    is_bulk = models.BooleanField(default=False)
    # Why it was put back last, as a code.
    put_back_for = models.CharField(max_length=40, blank=True)
    claimed_at = models.DateTimeField(null=True)
    lease = models.UUIDField(null=True)
    lease_expires_at = models.DateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    crashes = models.PositiveSmallIntegerField(default=0)

    failure_code = models.CharField(max_length=40, blank=True)
    failure_message = models.TextField(blank=True)
    failure_retryable = models.BooleanField(default=False)
    failure_errors = models.JSONField(default=list)

    pdf_name = models.CharField(max_length=200, blank=True)
    pdf_sha256 = models.CharField(max_length=64, blank=True)
    pdf_bytes = models.PositiveIntegerField(null=True)
    pdf_pages = models.PositiveIntegerField(null=True)

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

    @property
    def is_settled(self) -> bool:
        """Whether nothing will happen to it any more by itself."""
        return self.status not in {self.Status.QUEUED, self.Status.RENDERING}

    def claim(self, *, now: dt.datetime) -> uuid.UUID | None:
        """A lease on a queued deed that is due, or None when another was faster."""
        lease = uuid_utils.compat.uuid7()
        claimed = Deed.objects.claimable(now).filter(pk=self.pk)
        changed = claimed.update(
            status=self.Status.RENDERING,
            lease=lease,
            lease_expires_at=now + dt.timedelta(seconds=settings.DEED_LEASE_SECONDS),
            claimed_at=now,
            attempts=F("attempts") + 1,
            timeline=_and_then(self.Status.RENDERING, now),
        )
        return lease if changed else None

    def renew(self, lease: uuid.UUID, *, now: dt.datetime) -> bool:
        """Prolongs the lease. False when it was lost, and the work must be left."""
        expires_at = now + dt.timedelta(seconds=settings.DEED_LEASE_SECONDS)
        return bool(self._leased(lease).update(lease_expires_at=expires_at))

    def is_held(self, lease: uuid.UUID) -> bool:
        """Whether the lease is still this deed's."""
        return self._leased(lease).exists()

    def complete(
        self, lease: uuid.UUID, *, now: dt.datetime, name: str, sha256: str, size: int, pages: int
    ) -> bool:
        """rendering → completed. False when the lease was lost. `size` is in bytes."""
        return self._leave(
            lease,
            self.Status.COMPLETED,
            now,
            completed_at=now,
            pdf_name=name,
            pdf_sha256=sha256,
            pdf_bytes=size,
            pdf_pages=pages,
            pdf_checked_at=now,
        )

    def fail(
        self,
        lease: uuid.UUID,
        *,
        now: dt.datetime,
        code: str,
        message: str,
        retryable: bool,
        errors: list[JsonObject],
    ) -> bool:
        """rendering → failed. False when the lease was lost. `errors` name fields of the order."""
        return self._leave(
            lease,
            self.Status.FAILED,
            now,
            detail=code,
            failure_code=code,
            failure_message=message,
            failure_retryable=retryable,
            failure_errors=errors,
        )

    def put_back(
        self, lease: uuid.UUID, *, now: dt.datetime, next_attempt_at: dt.datetime, reason: str
    ) -> bool:
        """rendering → queued, to be tried again at a time. False when the lease was lost."""
        return self._leave(
            lease,
            self.Status.QUEUED,
            now,
            detail=reason,
            next_attempt_at=next_attempt_at,
            hinted_at=None,
            put_back_for=reason,
        )

    def give_back(self, lease: uuid.UUID, *, now: dt.datetime, is_counted: bool) -> bool:
        """rendering → queued at once, as if it had not been claimed: its worker is being stopped.

        `is_counted` says whether the claim counted as an attempt. False when the lease was lost.
        """
        return self._leave(
            lease,
            self.Status.QUEUED,
            now,
            detail="worker_stopped",
            next_attempt_at=now,
            hinted_at=None,
            attempts=F("attempts") - int(is_counted),
        )

    def abandon(self, lease: uuid.UUID, *, now: dt.datetime) -> bool:
        """Ends the lease at once: its worker broke. The sweeper then counts a crash."""
        return bool(self._leased(lease).update(lease_expires_at=now))

    def cancel(self, *, now: dt.datetime) -> bool:
        """queued → cancelled. False in any other state."""
        return bool(
            Deed.objects.filter(pk=self.pk, status=self.Status.QUEUED).update(
                status=self.Status.CANCELLED, timeline=_and_then(self.Status.CANCELLED, now)
            )
        )

    def requeue(self, *, now: dt.datetime) -> bool:
        """failed → queued, with all attempts ahead of it again. False in any other state.

        Raises IntegrityError (`one_live_deed_per_order`) when another deed took over its order.
        """
        return bool(
            Deed.objects.filter(pk=self.pk, status=self.Status.FAILED).update(
                status=self.Status.QUEUED,
                next_attempt_at=now,
                hinted_at=None,
                attempts=0,
                crashes=0,
                failure_code="",
                failure_message="",
                failure_retryable=False,
                failure_errors=[],
                put_back_for="",
                timeline=_and_then(self.Status.QUEUED, now, "requeued_by_staff"),
            )
        )

    @property
    def waiting_since(self) -> dt.datetime:
        """When it was ordered, or queued again by staff: what gives it all its time."""
        again = [entry["at"] for entry in self.timeline if entry.get("detail") == "requeued_by_staff"]
        return dt.datetime.fromisoformat(again[-1]) if again else self.created_at

    def recover(self, *, now: dt.datetime, cause: str) -> bool:
        """Takes a deed from a worker that let its lease run out: queued again, or failed.

        A deed that ended DEED_MAX_CRASHES workers is not given to another one; `cause` is what is
        known of the last crash.
        """
        is_poison = self.crashes + 1 >= settings.DEED_MAX_CRASHES
        outcome = (
            {
                "status": self.Status.FAILED,
                "failure_code": "renderer_crashed",
                "failure_message": f"Making this deed ended its worker again and again ({cause}).",
                "failure_retryable": False,
                "timeline": _and_then(self.Status.FAILED, now, "renderer_crashed"),
            }
            if is_poison
            else {
                "status": self.Status.QUEUED,
                "next_attempt_at": now,
                "hinted_at": None,
                "timeline": _and_then(self.Status.QUEUED, now, "lease_expired"),
            }
        )
        abandoned = Deed.objects.abandoned(now).filter(pk=self.pk, lease=self.lease)
        return bool(abandoned.update(lease=None, lease_expires_at=None, crashes=F("crashes") + 1, **outcome))

    def _leased(self, lease: uuid.UUID) -> models.QuerySet["Deed"]:
        return Deed.objects.filter(pk=self.pk, status=self.Status.RENDERING, lease=lease)

    def _leave(
        self, lease: uuid.UUID, status: str, now: dt.datetime, detail: str = "", **fields: Any
    ) -> bool:
        changed = self._leased(lease).update(
            status=status,
            lease=None,
            lease_expires_at=None,
            timeline=_and_then(status, now, detail),
            **fields,
        )
        return bool(changed)


def first_entry(now: dt.datetime) -> JsonObject:
    """The timeline's entry of a deed that was just accepted."""
    return timeline_entry(Deed.Status.QUEUED, now, "")


def _and_then(status: str, now: dt.datetime, detail: str = "") -> Func:
    """The timeline with one more entry, appended by the database in the same statement."""
    return Func(
        F("timeline"),
        Value([timeline_entry(status, now, detail)], output_field=models.JSONField()),
        template="%(expressions)s",
        arg_joiner=" || ",
        output_field=models.JSONField(),
    )


def timeline_entry(status: str, now: dt.datetime, detail: str) -> JsonObject:
    entry = {"status": str(status), "at": now.isoformat().replace("+00:00", "Z")}
    return {**entry, "detail": detail} if detail else entry
