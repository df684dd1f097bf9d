"""What each comparison of the books found, kept so that finance can look at it in the morning."""

import datetime as dt
from typing import Final, Self

import uuid_utils.compat
from django.db import models
from django.utils import timezone

from keys.models import Partner

# Stripe takes usage of 35 days; what is older can't change any more.
WHOLE: Final = dt.timedelta(days=35)


class ReconciliationRunQuerySet(models.QuerySet["ReconciliationRun"]):
    def whole(self) -> Self:
        """Those of all partners and all days that can change, the newest first."""
        ended = self.filter(partner=None, finished_at__isnull=False)
        return ended.filter(ends_at__gte=models.F("starts_at") + WHOLE).order_by("-started_at")


class ReconciliationRun(models.Model):
    """From `starts_at` up to but without `ends_at`; of all partners unless one is named."""

    id = models.UUIDField(primary_key=True, default=uuid_utils.compat.uuid7, editable=False)
    started_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    partner = models.ForeignKey(Partner, on_delete=models.PROTECT, null=True, related_name="+")
    actor = models.CharField(max_length=200)
    variances = models.JSONField(default=list)
    counts = models.JSONField(default=dict, help_text="By class.")
    repaired = models.PositiveIntegerField(default=0)
    # Which part could not be compared (Stripe was away); what the others found stands.
    error = models.CharField(max_length=500, blank=True)

    objects = ReconciliationRunQuerySet.as_manager()

    class Meta:
        db_table = "reconciliation_runs"
        permissions = [("run_reconciliationrun", "Can compare the books, and repair what is safe")]
        indexes = [models.Index(fields=["-started_at"], name="reconciliations_newest")]

    def __str__(self) -> str:
        return f"{self.starts_at:%Y-%m-%d} to {self.ends_at:%Y-%m-%d}, run {self.started_at:%Y-%m-%d %H:%M}"

    @property
    def total(self) -> int:
        return len(self.variances)

    @property
    def is_clean(self) -> bool:
        return not self.variances and not self.error
