"""The states that a deed goes through.

They move by conditional UPDATE, each in one statement that also writes the timeline, so that of two
processes with the same deed one wins and the other sees that it lost.
"""

import datetime as dt
import uuid
from typing import Any, Self

from django.conf import settings
from django.db import models
from django.db.models import F
from django.utils import timezone

from deeds.models.keeping import KeptPdf, KeptQuerySet
from deeds.models.timeline import JsonObject, and_then, entry


class MovingQuerySet(KeptQuerySet):
    def claimable(self, now: dt.datetime) -> Self:
        """Queued, and due."""
        return self.filter(status=MovingDeed.Status.QUEUED, next_attempt_at__lte=now)

    def abandoned(self, now: dt.datetime) -> Self:
        """In the hands of a worker whose lease has run out."""
        return self.filter(status=MovingDeed.Status.RENDERING, lease_expires_at__lte=now)


class MovingDeed(KeptPdf):
    class Status(models.TextChoices):
        QUEUED = "queued"
        RENDERING = "rendering"
        COMPLETED = "completed"
        FAILED = "failed"
        CANCELLED = "cancelled"

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

    class Meta:
        abstract = True

    @property
    def is_settled(self) -> bool:
        """Whether nothing will happen to it any more by itself."""
        return self.status not in {self.Status.QUEUED, self.Status.RENDERING}

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
        """rendering → queued, to be tried again at a time. False when the lease was lost.

        A probe that found the renderer away leaves no trace in the timeline: an outage has many.
        """
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

    def cancel(self, *, now: dt.datetime, detail: str = "") -> bool:
        """queued → cancelled. False in any other state."""
        ended = and_then(entry(self.Status.CANCELLED, now, detail))
        queued = self._rows().filter(pk=self.pk, status=self.Status.QUEUED)
        return bool(queued.update(status=self.Status.CANCELLED, timeline=ended))

    def remade(self, *, now: dt.datetime, name: str, sha256: str, size: int, pages: int) -> bool:
        """Another PDF for a completed deed. False when it has been deleted, or replaced by another one."""
        mine = self._rows().with_pdf().filter(pk=self.pk, pdf_sha256=self.pdf_sha256)
        changed = mine.update(
            pdf_name=name,
            pdf_sha256=sha256,
            pdf_bytes=size,
            pdf_pages=pages,
            pdf_checked_at=now,
            timeline=and_then(entry(self.Status.COMPLETED, now, "rendered_again")),
        )
        return bool(changed)

    def requeue(self, *, now: dt.datetime) -> bool:
        """failed → queued, with all attempts ahead of it again. False in any other state.

        False as well where a corrected deed was ordered in its place: the order would be made twice.
        Raises IntegrityError (`one_live_deed_per_order`) when another deed took over its order.
        """
        return bool(
            self._rows()
            .filter(pk=self.pk, status=self.Status.FAILED, superseded_at=None)
            .update(
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
                timeline=and_then(entry(self.Status.QUEUED, now, "requeued_by_staff")),
            )
        )

    @property
    def waiting_since(self) -> dt.datetime:
        """When it was ordered, or queued again by staff: what gives it all its time."""
        again = [entry["at"] for entry in self.timeline if entry.get("detail") == "requeued_by_staff"]
        return dt.datetime.fromisoformat(again[-1]) if again else self.created_at

    def recover(self, *, now: dt.datetime) -> bool:
        """Takes a deed from a worker that let its lease run out: queued again, or failed.

        A deed that ended DEED_MAX_CRASHES workers is not given to another one.
        """
        is_poison = self.crashes + 1 >= settings.DEED_MAX_CRASHES
        outcome = (
            {
                "status": self.Status.FAILED,
                "failure_code": "renderer_crashed",
                "failure_message": "Making this deed failed again and again, by a fault of ours.",
                "failure_retryable": False,
                "timeline": and_then(entry(self.Status.FAILED, now, "renderer_crashed")),
            }
            if is_poison
            else {
                "status": self.Status.QUEUED,
                "next_attempt_at": now,
                "hinted_at": None,
                "timeline": and_then(entry(self.Status.QUEUED, now, "lease_expired")),
            }
        )
        abandoned = self._rows().abandoned(now).filter(pk=self.pk, lease=self.lease)
        return bool(abandoned.update(lease=None, lease_expires_at=None, crashes=F("crashes") + 1, **outcome))

    def _rows(self) -> MovingQuerySet:
        return MovingQuerySet(type(self))

    def _leased(self, lease: uuid.UUID) -> MovingQuerySet:
        return self._rows().filter(pk=self.pk, status=self.Status.RENDERING, lease=lease)

    def _leave(
        self, lease: uuid.UUID, status: str, now: dt.datetime, detail: str = "", **fields: Any
    ) -> bool:
        changed = self._leased(lease).update(
            status=status,
            lease=None,
            lease_expires_at=None,
            timeline=and_then(*self._entries(status, now, detail)),
            **fields,
        )
        return bool(changed)

    def _entries(self, status: str, now: dt.datetime, detail: str) -> list[JsonObject]:
        """What is added to the timeline as a lease is left. A probe's claim is told with what came of it."""
        left = entry(status, now, detail)
        if self.timeline and self.timeline[-1]["status"] == self.Status.RENDERING:
            return [left]
        if status == self.Status.QUEUED:
            return []
        return [entry(self.Status.RENDERING, self.claimed_at or now), left]
