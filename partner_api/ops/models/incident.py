"""Something that staff were told of, and whether it is over. A row is opened once, so it is told once."""

from django.db import models
from django.db.models import Q


class Incident(models.Model):
    """`name` says what kind it is (`main_api_failing`), `about` whom it concerns, such as a key's prefix."""

    name = models.CharField(max_length=60)
    about = models.CharField(max_length=100, blank=True)
    summary = models.CharField(max_length=500)
    opened_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    told_at = models.DateTimeField(null=True)
    told_end_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "incidents"
        constraints = [
            models.UniqueConstraint(
                fields=["name", "about"], condition=Q(ended_at=None), name="one_open_incident_of_a_kind"
            ),
            models.CheckConstraint(
                condition=Q(ended_at__isnull=False) | Q(told_end_at=None),
                name="incident_end_is_told_once_ended",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.about}".strip()
