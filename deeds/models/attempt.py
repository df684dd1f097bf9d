"""The log of what was tried to make a deed, and what the Main API said. It is kept for a while only."""

import datetime as dt
from typing import Self

from django.db import models

from deeds.models.deed import Deed


class DeedAttemptQuerySet(models.QuerySet["DeedAttempt"]):
    def older_than(self, moment: dt.datetime) -> Self:
        return self.filter(ended_at__lt=moment)


class DeedAttempt(models.Model):
    """One claim of a deed by a worker. `outcome` is `completed` or the code of what went wrong."""

    id = models.BigAutoField(primary_key=True)
    deed = models.ForeignKey(Deed, on_delete=models.PROTECT, related_name="attempt_log")
    number = models.PositiveSmallIntegerField()
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField()
    outcome = models.CharField(max_length=40)
    calls = models.PositiveSmallIntegerField(default=0)
    http_status = models.PositiveSmallIntegerField(null=True)
    main_api_request_id = models.CharField(max_length=128, blank=True)
    generation_seconds = models.FloatField(null=True)
    # Never a fact of the order: those are taken out before.
    reason = models.CharField(max_length=500, blank=True)

    objects = DeedAttemptQuerySet.as_manager()

    class Meta:
        db_table = "deed_attempts"
        indexes = [models.Index(fields=["ended_at"], name="deed_attempts_by_age")]

    def __str__(self) -> str:
        return f"{self.number}: {self.outcome}"
