"""That the first partner was made by bootstrap: one row at most, so that it can happen only once."""

from django.db import models
from django.db.models import Q
from django.utils import timezone

from keys.models.partner import Partner


class Setup(models.Model):
    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    partner = models.ForeignKey(Partner, on_delete=models.PROTECT, null=True, related_name="+")
    completed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        db_table = "setup"
        constraints = [models.CheckConstraint(condition=Q(id=1), name="setup_happens_once")]

    def __str__(self) -> str:
        return f"setup of {self.completed_at:%Y-%m-%d}"
