"""The one definition of the rollups: how rows of the request log become sums, by hour and by day.

`billing.ingest` adds each new row as it is stored. `rebuild` makes whole days anew from the
log and `differences` compares, for whoever doubts.
"""

import datetime as dt
from collections.abc import Iterator
from typing import Any, Final

from django.db import connection, transaction

from billing.latency import BUCKET_SQL
from billing.models import Level
from billing.models.rollup import GRAIN, MEASURES
from billing.partitions import LOCK, existing

_DIMENSIONS: Final = ("partner_id", "key_id", "livemode", "method", "route", "status", "deed_type")
_BY_LEVEL: Final = {
    Level.FULL: _DIMENSIONS,
    Level.KEY: ("partner_id", "key_id", "livemode"),
    Level.PARTNER: ("partner_id", "livemode"),
    Level.ROUTE: ("livemode", "method", "route", "status", "deed_type"),
    Level.TOTAL: ("livemode",),
}
_GRAIN: Final = ", ".join(f"{name}_id" if name in {"partner", "key"} else name for name in GRAIN)
_HISTOGRAM: Final = "latency_buckets, latency_counts"
TABLES: Final = (("usage_hourly", "hour"), ("usage_daily", "day"))


def adding_sql(table: str, unit: str, source: str) -> str:
    """A statement that adds the rows of `source` (a table or a CTE of api_usage's columns) to a rollup."""
    return adding_cells_sql(table, f"({cells_sql(unit, source)}) AS by_cell")


def adding_cells_sql(table: str, cells: str) -> str:
    """The same for rows that were counted by cell already: by the rollup's period, or more finely."""
    sums = ", ".join(f"{name} = kept.{name} + EXCLUDED.{name}" for name in MEASURES)
    return f"""
INSERT INTO {table} AS kept ({_GRAIN}, {", ".join(MEASURES)}, {_HISTOGRAM})
{_levels_sql(cells)}
ON CONFLICT ({_GRAIN}) DO UPDATE SET {sums},
  (latency_buckets, latency_counts) = (
    SELECT array_agg(bucket ORDER BY bucket), array_agg(n ORDER BY bucket) FROM (
      SELECT bucket, sum(n)::bigint AS n FROM (
        SELECT * FROM unnest(kept.latency_buckets, kept.latency_counts)
        UNION ALL SELECT * FROM unnest(EXCLUDED.latency_buckets, EXCLUDED.latency_counts)
      ) AS both_of_them(bucket, n) GROUP BY bucket
    ) AS added
  )"""  # noqa: S608 - names of our own


def summing_sql(unit: str, source: str) -> str:
    """A query for the rollup's rows that the rows of `source` make."""
    return _levels_sql(f"({cells_sql(unit, source)}) AS by_cell")


def cells_sql(unit: str, source: str) -> str:
    """A query that counts rows by period, every dimension and bucket of latency."""
    return f"""
SELECT date_trunc('{unit}', at, 'UTC') AS moment, ({BUCKET_SQL})::smallint AS bucket,
  {", ".join(_DIMENSIONS)}, count(*) AS requests,
  count(*) FILTER (WHERE status >= 400) AS errors,
  count(*) FILTER (WHERE status = 429) AS rate_limited,
  sum(deeds) AS deeds, sum(cost_units) AS cost_units,
  sum(bytes_in) AS bytes_in, sum(bytes_out) AS bytes_out
FROM {source} GROUP BY 1, 2, {", ".join(_DIMENSIONS)}"""  # noqa: S608 - names of our own


def given_cells_sql(given: str) -> str:
    """A query for cells that `cells_sql` has counted, of a JSON list of them."""
    kinds = ("uuid", "uuid", "boolean", "text", "text", "smallint", "text")
    names = (f"{name} {kind}" for name, kind in zip(_DIMENSIONS, kinds, strict=True))
    sums = (f"{name} bigint" for name in MEASURES)
    columns = ", ".join(("moment timestamptz", "bucket smallint", *names, *sums))
    return f"SELECT * FROM jsonb_to_recordset({given}) AS given({columns})"  # noqa: S608 - names of our own


def days_sql(hours: str) -> str:
    """A query for the cells of `hours`, with their days instead of their hours."""
    names = ", ".join(("bucket", *_DIMENSIONS, *MEASURES))
    return f"SELECT date_trunc('day', moment, 'UTC') AS moment, {names} FROM {hours}"  # noqa: S608 - names of our own


def rebuild(first: dt.date, last: dt.date) -> int:
    """Makes both rollups of these days (in UTC) anew from the log; how many days could be.

    A day whose partition was dropped keeps its rollups: they are all that is left of it.
    """
    rebuilt = 0
    for day in _days(first, last):
        with transaction.atomic(), connection.cursor() as cursor:
            _take_turn(cursor)
            # Its month may have been dropped since the days were counted.
            if not _is_in_log(day):
                continue
            for table, unit in TABLES:
                cursor.execute(f"DELETE FROM {table} WHERE moment >= %s AND moment < %s", _bounds(day))  # noqa: S608 - names of our own
                cursor.execute(adding_sql(table, unit, _of_day()), _bounds(day))
            rebuilt += 1
    return rebuilt


def differences(first: dt.date, last: dt.date) -> list[dict[str, Any]]:
    """Where the rollups of these days (in UTC) are not what the log says: none, while all is well."""
    columns = f"{_GRAIN}, {', '.join(MEASURES)}, {_HISTOGRAM}"
    found = []
    for day in _days(first, last):
        with transaction.atomic(), connection.cursor() as cursor:
            _take_turn(cursor)
            if not _is_in_log(day):
                continue
            for table, unit in TABLES:
                kept = f"SELECT {columns} FROM {table} WHERE moment >= %s AND moment < %s"  # noqa: S608 - names of our own
                summed = f"SELECT {columns} FROM ({summing_sql(unit, _of_day())}) AS summed"  # noqa: S608 - names of our own
                for sign, one, other in (("missing", summed, kept), ("unfounded", kept, summed)):
                    cursor.execute(
                        f"SELECT moment, level, requests FROM (({one}) EXCEPT ({other})) AS odd",  # noqa: S608 - names of our own
                        _bounds(day) * 2,
                    )
                    found += [
                        {"table": table, "what": sign, "moment": moment, "level": level, "requests": requests}
                        for moment, level, requests in cursor.fetchall()
                    ]
    return found


def _levels_sql(cells: str) -> str:
    sets = ", ".join(f"(moment, bucket, {', '.join(names)})" for names in _BY_LEVEL.values())
    return f"""
SELECT {_GRAIN}, {", ".join(f"sum({name})::bigint AS {name}" for name in MEASURES)},
  array_agg(bucket ORDER BY bucket) AS latency_buckets, array_agg(requests ORDER BY bucket) AS latency_counts
FROM (
  SELECT grouping(partner_id, key_id, route) AS level, moment, bucket, {", ".join(_DIMENSIONS)},
    {", ".join(f"sum({name})::bigint AS {name}" for name in MEASURES)}
  FROM {cells}
  GROUP BY GROUPING SETS ({sets})
) AS by_level
GROUP BY {_GRAIN}"""  # noqa: S608 - names of our own


def _take_turn(cursor: Any) -> None:
    # A busy day takes longer than a request may; rows wait in the spool meanwhile.
    cursor.execute("SET LOCAL statement_timeout = 0")
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])


def _of_day() -> str:
    return "(SELECT * FROM api_usage WHERE at >= %s AND at < %s) AS of_day"


def _bounds(day: dt.date) -> list[dt.datetime]:
    start = dt.datetime.combine(day, dt.time(), dt.UTC)
    return [start, start + dt.timedelta(days=1)]


def _days(first: dt.date, last: dt.date) -> Iterator[dt.date]:
    months = existing()
    if months:
        day = max(first, months[0].start.date())
        while day <= last:
            yield day
            day += dt.timedelta(days=1)


def _is_in_log(day: dt.date) -> bool:
    """Whether the log still has the day, or would have it: months are dropped from the oldest on."""
    months = existing()
    return bool(months) and day >= months[0].start.date()
