"""A PDF that is not in the storage as the deed's row says. One open finding a deed and kind."""

import uuid_utils.compat
from django.db import models
from django.db.models import Q
from django.utils import timezone

from deeds.models.deed import Deed


class StorageFinding(models.Model):
    class Kind(models.TextChoices):
        MISSING = "missing", "not in the storage"
        DIFFERS = "differs", "not the PDF that was stored"
        UNREADABLE = "unreadable", "not given to us, though others are"

    id = models.UUIDField(primary_key=True, default=uuid_utils.compat.uuid7, editable=False)
    deed = models.ForeignKey(Deed, on_delete=models.PROTECT, related_name="findings")
    kind = models.CharField(max_length=10, choices=Kind)
    found_at = models.DateTimeField(default=timezone.now)
    seen_at = models.DateTimeField(default=timezone.now)
    # Nothing writes it any more; the column goes once no version that does is running.
    told_at = models.DateTimeField(null=True)
    resolved_at = models.DateTimeField(null=True)
    detail = models.CharField(max_length=300, blank=True)

    class Meta:
        db_table = "storage_findings"
        constraints = [
            models.UniqueConstraint(
                fields=["deed", "kind"], condition=Q(resolved_at=None), name="one_open_finding_per_deed"
            ),
            models.CheckConstraint(
                condition=Q(kind__in=["missing", "differs", "unreadable"]), name="finding_kind_is_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.deed_id} {self.kind}"
