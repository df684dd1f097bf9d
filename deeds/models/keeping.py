"""What a deed's row says of its PDF: which it is, and whether it was checked, held or deleted."""

import datetime as dt
from typing import TYPE_CHECKING, Self

from django.db import models

if TYPE_CHECKING:
    from deeds.models.deed import Deed  # noqa: F401 - the base class below names it


class KeptQuerySet(models.QuerySet["Deed"]):
    def with_pdf(self) -> Self:
        """Completed, and the PDF is still ours to hand out."""
        return self.filter(status="completed", pdf_deleted_at=None)

    def outdated(self, before: dt.datetime) -> Self:
        """Completed before a time, with a PDF that no legal hold keeps."""
        return self.with_pdf().filter(completed_at__lt=before, held_at=None)

    def half_deleted(self) -> Self:
        """Told to be deleted, while the storage may still have the PDF."""
        return self.filter(pdf_deleted_at__isnull=False).exclude(pdf_name="")

    def put_on_hold(self, *, now: dt.datetime, reason: str) -> int:
        """Keeps PDFs, or those to come, from being deleted. Not where they are held already or gone."""
        return self.filter(held_at=None, pdf_deleted_at=None).update(held_at=now, hold_reason=reason[:500])

    def release(self) -> int:
        """Ends holds."""
        return self.filter(held_at__isnull=False).update(held_at=None, hold_reason="")


class KeptPdf(models.Model):
    pdf_name = models.CharField(max_length=200, blank=True)
    pdf_sha256 = models.CharField(max_length=64, blank=True)
    pdf_bytes = models.PositiveIntegerField(null=True)
    pdf_pages = models.PositiveIntegerField(null=True)
    # When it was last read back from the storage and compared; storing it counts.
    pdf_checked_at = models.DateTimeField(null=True)
    pdf_deleted_at = models.DateTimeField(null=True)
    held_at = models.DateTimeField(null=True)
    hold_reason = models.CharField(max_length=500, blank=True)

    class Meta:
        abstract = True

    @property
    def has_pdf(self) -> bool:
        """Whether there is a PDF to hand out."""
        return bool(self.status == "completed" and self.pdf_deleted_at is None)  # type: ignore[attr-defined]  # Deed's
