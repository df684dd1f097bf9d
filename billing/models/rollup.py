"""What the request log comes to, by hour and by day. It is written together with the rows: billing.ingest."""

from typing import Final

from django.contrib.postgres.fields import ArrayField
from django.db import models

from keys.models import ApiKey, Partner

# What tells one row of a rollup from another. The first three find a partner's part of a level.
GRAIN: Final = [
    "level",
    "partner",
    "moment",
    "key",
    "livemode",
    "method",
    "route",
    "status",
    "deed_type",
]


# What is summed, besides the histogram.
MEASURES: Final = ("requests", "errors", "rate_limited", "deeds", "cost_units", "bytes_in", "bytes_out")


class Level(models.IntegerChoices):
    """What a rollup's row sums over. Its number is Postgres' GROUPING(partner_id, key_id, route).

    A question is answered from the coarsest level that can, so that its cost does not follow the traffic.
    """

    FULL = 0, "nothing: every dimension"
    KEY = 1, "by key"
    PARTNER = 3, "by partner"
    ROUTE = 6, "by route, over all partners"
    TOTAL = 7, "over everything"


class Rollup(models.Model):
    """Sums over one period. Dimensions that the level sums over are null.

    `latency_buckets` and `latency_counts` are a histogram without its empty buckets, see billing.latency.
    """

    id = models.BigAutoField(primary_key=True)
    level = models.PositiveSmallIntegerField(choices=Level)
    moment = models.DateTimeField(help_text="The period's first moment.")
    partner = models.ForeignKey(
        Partner, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, null=True, related_name="+"
    )
    key = models.ForeignKey(
        ApiKey, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, null=True, related_name="+"
    )
    livemode = models.BooleanField(null=True)
    method = models.CharField(max_length=10, null=True)  # noqa: DJ001 - null: summed over, empty: none
    route = models.CharField(max_length=120, null=True)  # noqa: DJ001 - the same
    status = models.PositiveSmallIntegerField(null=True)
    deed_type = models.CharField(max_length=20, null=True)  # noqa: DJ001 - the same
    requests = models.PositiveBigIntegerField()
    errors = models.PositiveBigIntegerField(help_text="Answers of 400 and above.")
    rate_limited = models.PositiveBigIntegerField()
    deeds = models.PositiveBigIntegerField()
    cost_units = models.PositiveBigIntegerField()
    bytes_in = models.PositiveBigIntegerField()
    bytes_out = models.PositiveBigIntegerField()
    latency_buckets = ArrayField(models.PositiveSmallIntegerField())
    latency_counts = ArrayField(models.PositiveBigIntegerField())

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.moment:%Y-%m-%d %H:%M} {self.get_level_display()}: {self.requests}"


class UsageHourly(Rollup):
    class Meta:
        db_table = "usage_hourly"
        verbose_name_plural = "usage by hour"
        indexes = [models.Index(fields=["level", "moment"], name="usage_hourly_by_moment")]
        constraints = [
            models.UniqueConstraint(fields=GRAIN, nulls_distinct=False, name="one_usage_row_an_hour"),
        ]


class UsageDaily(Rollup):
    class Meta:
        db_table = "usage_daily"
        verbose_name_plural = "usage by day"
        indexes = [models.Index(fields=["level", "moment"], name="usage_daily_by_moment")]
        constraints = [
            models.UniqueConstraint(fields=GRAIN, nulls_distinct=False, name="one_usage_row_a_day"),
        ]


class Analytics(UsageDaily):
    """Stands in the admin for the dashboard; who has `billing.view_analytics` may look at it."""

    class Meta:
        proxy = True
        default_permissions = ("view",)
        verbose_name = verbose_name_plural = "analytics"
