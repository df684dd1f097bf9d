"""One line of the log of downloads: who was given which deed's PDF, when, and from where.

A key and staff are given a link, which is all that can be seen of them; whoever uses a link is given the
PDF, or its address at S3. docs/storage.md says what only S3's own log can tell.
"""

import uuid_utils.compat
from django.db import models
from django.db.models import Q
from django.utils import timezone

from deeds.models.deed import Deed
from keys.models import Partner


class DeedDownload(models.Model):
    class Kind(models.TextChoices):
        KEY = "key", "link given to a key"
        STAFF = "staff", "link given to staff"
        LINK = "link", "link used"

    id = models.UUIDField(primary_key=True, default=uuid_utils.compat.uuid7, editable=False)
    deed = models.ForeignKey(Deed, on_delete=models.PROTECT, related_name="downloads")
    partner = models.ForeignKey(Partner, on_delete=models.PROTECT, related_name="downloads")
    at = models.DateTimeField(default=timezone.now)
    kind = models.CharField(max_length=5, choices=Kind)
    # A key's prefix or a user's name; empty for a link, which anyone may hold.
    who = models.CharField(max_length=200, blank=True)
    address = models.GenericIPAddressField(null=True)
    request_id = models.CharField(max_length=128, blank=True)
    status = models.PositiveSmallIntegerField()
    asked_range = models.CharField(max_length=100, blank=True)

    class Meta:
        db_table = "deed_downloads"
        indexes = [
            models.Index(fields=["deed", "-id"], name="downloads_of_deed"),
            models.Index(fields=["partner", "-id"], name="downloads_of_partner"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=["key", "staff", "link"]), name="download_kind_is_known"
            ),
            models.CheckConstraint(
                condition=Q(kind="link", who="") | (~Q(kind="link") & ~Q(who="")),
                name="download_names_who_is_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.who or 'a link'}"
