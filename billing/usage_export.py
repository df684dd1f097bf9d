"""Usage as rows of a table, one by one, so that a year of all partners needs no more memory than a day."""

from collections.abc import Iterator
from typing import Any, Final

from billing.latency import percentiles
from billing.models import Level, UsageDaily, UsageHourly
from billing.usage import Question
from keys.models import ApiKey, Partner

COLUMNS: Final = (
    "period",
    "partner",
    "key",
    "livemode",
    "method",
    "route",
    "status",
    "deed_type",
    "requests",
    "errors",
    "rate_limited",
    "deeds",
    "cost_units",
    "bytes_in",
    "bytes_out",
    "latency_p50_ms",
    "latency_p95_ms",
    "latency_p99_ms",
)


def rows(question: Question) -> Iterator[tuple[Any, ...]]:
    """Every dimension of every period, in the order of COLUMNS. By the day the range is of whole days."""
    model: type[UsageDaily | UsageHourly] = UsageHourly if question.interval == "hour" else UsageDaily
    found = model.objects.filter(
        level=Level.FULL, moment__gte=question.range.start, moment__lt=question.range.end
    )
    if question.partner is not None:
        found = found.filter(partner=question.partner)
    if question.livemode is not None:
        found = found.filter(livemode=question.livemode)
    partners = dict(Partner.objects.values_list("pk", "name"))
    keys = {key.pk: key.prefix for key in ApiKey.objects.only("key_id", "environment").iterator()}
    for row in found.order_by("moment", "id").iterator(chunk_size=1000):
        latency = percentiles(dict(zip(row.latency_buckets, row.latency_counts, strict=True)))
        yield (
            row.moment.isoformat(),
            partners.get(row.partner_id, row.partner_id) if row.partner_id else "",
            keys.get(row.key_id, row.key_id) if row.key_id else "",
            "" if row.livemode is None else str(row.livemode).lower(),
            *(getattr(row, name) for name in COLUMNS[4:15]),
            *latency.values(),
        )
