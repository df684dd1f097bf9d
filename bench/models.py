"""A row, for whatever is measured against one INSERT."""

from django.db import models


class Row(models.Model):
    partner = models.CharField(max_length=64, blank=True)
    body = models.JSONField(default=dict)
    at = models.DateTimeField(auto_now_add=True)

    objects: "models.Manager[Row]"

    def __str__(self) -> str:
        return str(self.pk)
