"""The request log: one row for each request that reached the API.

The table is partitioned by month, so that dropping old rows costs nothing. It has no foreign keys in the
database: a row that tells what happened must never be refused, whatever became of the key since.
"""

from django.db import models

from keys.models import ApiKey, Partner


class ApiUsage(models.Model):
    """One request that reached the API.

    The id is made with the request, so that storing a row twice is storing it once. `partner` and `livemode`
    are null where no key was accepted, `key` too unless its secret was right and it was refused all the same;
    `route` is empty where no route fits the path.
    """

    pk = models.CompositePrimaryKey("at", "id")
    at = models.DateTimeField()
    id = models.UUIDField()
    partner = models.ForeignKey(
        Partner, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, null=True, related_name="+"
    )
    key = models.ForeignKey(
        ApiKey, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, null=True, related_name="+"
    )
    livemode = models.BooleanField(null=True)
    method = models.CharField(max_length=10)
    route = models.CharField(max_length=120)
    status = models.PositiveSmallIntegerField()
    error_code = models.CharField(max_length=40)
    latency_ms = models.FloatField()
    cost_units = models.PositiveIntegerField()
    deeds = models.PositiveIntegerField(help_text="New deeds that the request's orders made.")
    deed_type = models.CharField(max_length=20)
    deed_id = models.UUIDField(null=True, help_text="The deed that the address names.")
    bytes_in = models.PositiveBigIntegerField()
    bytes_out = models.PositiveBigIntegerField()
    address = models.GenericIPAddressField(null=True)
    request_id = models.CharField(max_length=128)

    class Meta:
        db_table = "api_usage"
        verbose_name_plural = "API usage"
        indexes = [models.Index(fields=["partner", "at"], name="api_usage_of_partner")]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.method} {self.route} {self.status}"
