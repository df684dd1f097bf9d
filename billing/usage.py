"""Answers what was used, when and by whom, from the rollups alone.

A question's cost follows the length of the answer, not the traffic: whole days come from the daily rollup
and only the ends of the range from the hourly one, at the coarsest level that knows the group.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal
from uuid import UUID

from django.db import connection

from billing.latency import percentiles
from billing.models import Level
from billing.models.rollup import MEASURES

Interval = Literal["hour", "day"]
Group = Literal["key", "route", "status", "deed_type", "partner"]

HOUR: Final = dt.timedelta(hours=1)
DAY: Final = dt.timedelta(days=1)
_LENGTH: Final[dict[str, dt.timedelta]] = {"hour": HOUR, "day": DAY}
# Null stands for a dimension that is summed over, so a group that is itself null is given a name here.
_GROUPS: Final[dict[str | None, str]] = {
    None: "''",
    "key": "coalesce(key_id::text, '')",
    "partner": "coalesce(partner_id::text, '')",
    "route": "method || ' ' || route",
    "status": "status::text",
    "deed_type": "deed_type",
}


@dataclass(frozen=True)
class Range:
    """Whole hours in UTC: `start` is in it, `end` is not."""

    start: dt.datetime
    end: dt.datetime

    @classmethod
    def around(cls, start: dt.datetime, end: dt.datetime) -> "Range":
        """The whole hours that hold all from `start` to `end`."""
        return cls(_floor(start, HOUR), _ceil(end, HOUR))

    @property
    def length(self) -> dt.timedelta:
        return self.end - self.start


@dataclass(frozen=True)
class Question:
    """`partner` None asks over all partners, `livemode` None in both modes, `interval` None in one period."""

    range: Range
    interval: Interval | None
    group: Group | None = None
    partner: UUID | None = None
    livemode: bool | None = None
    limit: int | None = None
    with_latency: bool = True


@dataclass
class Sums:
    """What a number of requests come to. `latency` counts requests by bucket of billing.latency."""

    requests: int = 0
    errors: int = 0
    rate_limited: int = 0
    deeds: int = 0
    cost_units: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    latency: dict[int, int] = field(default_factory=dict)

    def add(self, other: "Sums") -> None:
        for name in MEASURES:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for bucket, count in other.latency.items():
            self.latency[bucket] = self.latency.get(bucket, 0) + count

    def as_dict(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "errors": self.errors,
            "deeds": self.deeds,
            "cost_units": self.cost_units,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "latency_ms": percentiles(self.latency),
        }


@dataclass(frozen=True)
class Point:
    """One period of one group. `group` is text, empty where the question has no group or it is unknown."""

    period: dt.datetime
    group: str
    sums: Sums


def series(question: Question) -> list[Point]:
    """The periods that have a request, in order of time and group; at most `limit` of them, if given."""
    with connection.cursor() as cursor:
        cursor.execute(*_query(question))
        return [
            Point(period, group, _sums(sums, buckets, counts))
            for period, group, *sums, buckets, counts in cursor.fetchall()
        ]


def total_of(points: list[Point]) -> Sums:
    total = Sums()
    for point in points:
        total.add(point.sums)
    return total


def by_group(question: Question) -> dict[str, Sums]:
    """The sums over the whole range, by group."""
    return {point.group: point.sums for point in series(replace(question, interval=None))}


def floor(moment: dt.datetime, interval: Interval) -> dt.datetime:
    """The first moment of the period that this one is in."""
    return _floor(moment, _LENGTH[interval])


def ceil(moment: dt.datetime, interval: Interval) -> dt.datetime:
    """The same for a moment that begins a period; of any other, the first moment of the next one."""
    return _ceil(moment, _LENGTH[interval])


def _sums(values: list[int], buckets: list[int], counts: list[int]) -> Sums:
    measures = dict(zip(MEASURES, values, strict=True))
    return Sums(latency=dict(zip(buckets, counts, strict=True)), **measures)


def _query(question: Question) -> tuple[str, list[Any]]:
    parts, parameters = [], []
    for table, start, end in _parts(question):
        where, values = _where(question)
        parts.append(f"SELECT * FROM {table} WHERE moment >= %s AND moment < %s AND {where}")  # noqa: S608 - names of our own
        parameters += [start, end, *values]
    limit = f"LIMIT {int(question.limit)}" if question.limit is not None else ""
    sums = ", ".join(f"sum({name})::bigint AS {name}" for name in MEASURES)
    # Each period and group once in the sums and once in the histograms, which have more rows by then.
    unit = question.interval
    period = f"date_trunc('{unit}', moment, 'UTC')" if unit else "'epoch'::timestamptz"
    cells = "unnest(latency_buckets, latency_counts)" if question.with_latency else "(SELECT 0, 0)"
    query = f"""
WITH part AS MATERIALIZED (
  SELECT {period} AS period, {_GROUPS[question.group]} AS grp, *
  FROM ({" UNION ALL ".join(parts)}) AS rollup
), summed AS (
  SELECT period, grp, {sums} FROM part GROUP BY period, grp ORDER BY period, grp {limit}
), histogram AS (
  SELECT period, grp, array_agg(bucket) AS buckets, array_agg(n) AS counts FROM (
    SELECT period, grp, bucket, sum(n)::bigint AS n
    FROM part, {cells} AS cell(bucket, n) GROUP BY period, grp, bucket
  ) AS cells GROUP BY period, grp
)
SELECT period, grp, {", ".join(MEASURES)}, buckets, counts
FROM summed JOIN histogram USING (period, grp) ORDER BY period, grp"""  # noqa: S608 - names of our own
    return query, parameters


def _where(question: Question) -> tuple[str, list[Any]]:
    conditions: list[str] = ["level = %s"]
    values: list[Any] = [int(_level(question))]
    if question.partner is not None:
        conditions.append("partner_id = %s")
        values.append(question.partner)
    if question.livemode is not None:
        conditions.append("livemode = %s")
        values.append(question.livemode)
    return " AND ".join(conditions), values


def _level(question: Question) -> Level:
    if question.group == "key":
        return Level.KEY
    if question.group in {"route", "status", "deed_type"}:
        return Level.ROUTE if question.partner is None else Level.FULL
    if question.group == "partner" or question.partner is not None:
        return Level.PARTNER
    return Level.TOTAL


def _parts(question: Question) -> Iterator[tuple[str, dt.datetime, dt.datetime]]:
    """The tables to read, and what of each; there is always one."""
    start, end = question.range.start, question.range.end
    first_day, last_day = _ceil(start, DAY), _floor(end, DAY)
    if question.interval == "hour" or first_day >= last_day:
        yield "usage_hourly", start, end
        return
    yield "usage_daily", first_day, last_day
    if start < first_day:
        yield "usage_hourly", start, first_day
    if last_day < end:
        yield "usage_hourly", last_day, end


def _floor(moment: dt.datetime, step: dt.timedelta) -> dt.datetime:
    moment = moment.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
    return moment.replace(hour=0) if step == DAY else moment


def _ceil(moment: dt.datetime, step: dt.timedelta) -> dt.datetime:
    start = _floor(moment, step)
    return start if start == moment else start + step
