"""Something that happened, as partners are told of it: ids and links, never a PDF or a person's data."""

import uuid_utils.compat
from django.db import models
from django.utils import timezone

from keys.models import Partner


class Event(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid_utils.compat.uuid7, editable=False)
    type = models.CharField(max_length=60)
    partner = models.ForeignKey(Partner, on_delete=models.PROTECT, related_name="events")
    livemode = models.BooleanField()
    data = models.JSONField()
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        db_table = "webhook_events"
        indexes = [
            models.Index(fields=["partner", "livemode", "-id"], name="events_newest_first"),
            models.Index(fields=["partner", "livemode", "type", "-id"], name="events_by_type"),
            models.Index(fields=["partner", "livemode", "created_at"], name="events_by_time"),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.pk}"
