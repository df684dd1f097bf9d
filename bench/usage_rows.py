"""Fills a request log, and its rollups, with as many requests as are asked for, as Postgres itself can.

First how many of what kind there were (cells), of which the product's own statement makes the rollups; then
each as a row of the log. A month is loaded as one would restore it: into a table of its own, its indexes
after its rows, attached when all is there. What results is compared with what the product makes.
"""

import datetime as dt
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from django.db import connection, transaction

from billing import partitions, rollups
from billing.partitions import Month
from keys.models import ApiKey

DAYS: Final = 90
HOURS: Final = 10
KINDS: Final = 4
# One a core.
_SESSIONS: Final = 2

# An office's hours; a key does four kinds of things in each, most of them well. All that need not be worked
# out row by row is worked out here: ten million times a microsecond are ten seconds.
_CELLS: Final = """
CREATE UNLOGGED TABLE bench_cells AS
SELECT %(start)s::date::timestamp AT TIME ZONE 'UTC' + interval '1 day' * day + interval '1 hour' * hour
    AS moment,
  (28 + (day + hour + who * 7 + what * 5) %% 30)::smallint AS bucket,
  2::float8 ^ ((27.5::float8 + (day + hour + who * 7 + what * 5) %% 30) / 8) AS latency_ms,
  ((%(partners)s)::uuid[])[1 + who / %(keys_each)s] AS partner_id, ((%(keys)s)::uuid[])[1 + who] AS key_id,
  true AS livemode, CASE WHEN what = 0 THEN 'POST' ELSE 'GET' END::varchar(10) AS method,
  (ARRAY['/v2/deeds', '/v2/deeds', '/v2/deeds/{deed_id}', '/v2/deeds/{deed_id}/pdf'])[1 + what]::varchar(120)
    AS route,
  (CASE WHEN (day + who) %% 17 = 0 AND what = 3 THEN 429 WHEN what = 0 THEN 202 ELSE 200 END)::smallint
    AS status,
  CASE WHEN what = 0 THEN 'grant' ELSE '' END::varchar(20) AS deed_type, (what = 0)::int AS deeds,
  substr(md5(concat(day, ' ', hour, ' ', who, ' ', what)), 1, 24) AS id,
  greatest(1, round(%(rows)s / (%(days)s * %(hours)s * %(holders)s * 4.0)))::int AS requests
FROM generate_series(0, %(days)s - 1) AS day, generate_series(8, 7 + %(hours)s) AS hour,
  generate_series(0, %(holders)s - 1) AS who, generate_series(0, 3) AS what
ORDER BY moment
"""
_COUNTED: Final = """
(SELECT date_trunc('{unit}', moment, 'UTC') AS moment, bucket, partner_id, key_id, livemode, method, route,
  status, deed_type, sum(requests) AS requests,
  coalesce(sum(requests) FILTER (WHERE status >= 400), 0) AS errors,
  coalesce(sum(requests) FILTER (WHERE status = 429), 0) AS rate_limited,
  sum(requests * deeds) AS deeds, sum(requests) AS cost_units, 0 AS bytes_in, 500 * sum(requests) AS bytes_out
FROM bench_cells GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9) AS counted
"""
# The ids differ within an hour by their last eight digits, and between hours by the others.
_ROWS: Final = """
INSERT INTO {table} (at, id, partner_id, key_id, livemode, method, route, status, error_code, latency_ms,
  cost_units, deeds, deed_type, bytes_in, bytes_out, address, request_id)
SELECT moment + n * interval '1 second', (cell.id || to_hex(268435456 + n))::uuid, partner_id, key_id,
  livemode, method, route, status, '', latency_ms, 1, deeds, deed_type, 0, 500, '203.0.113.7', 'req_bench'
FROM bench_cells AS cell, generate_series(1, requests) AS n WHERE moment >= %s AND moment < %s
"""
_SHAPE: Final = """
SELECT relpersistence::text || relispartition FROM pg_class WHERE oid = %(table)s::regclass
UNION ALL
SELECT attname || ' ' || format_type(atttypid, atttypmod) || attnotnull FROM pg_attribute
  WHERE attrelid = %(table)s::regclass AND attnum > 0 AND NOT attisdropped
UNION ALL
SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %(table)s::regclass
UNION ALL
SELECT replace(pg_get_indexdef(indexrelid), %(table)s, 'month') || indisvalid FROM pg_index
  WHERE indrelid = %(table)s::regclass
ORDER BY 1
"""


def fill(rows: int, *, keys_each: int) -> dict[str, float]:
    """Makes about so many requests of the last 90 days: how many there are, and the seconds it took.

    Raises RuntimeError when the result is not what the product itself would have made of them.
    """
    began = time.monotonic()
    start = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=DAYS - 1)
    first = Month(start.year, start.month)
    months = [first.plus(number) for number in range(4) if first.plus(number).start.date() <= _today()]
    _make_cells(rows, start, keys_each=keys_each)
    with connection.cursor() as cursor:
        for month in months:
            cursor.execute(f"DROP TABLE IF EXISTS {month.table}")
    jobs: list[Callable[[], None]] = [
        *(lambda table=table, unit=unit: _make_rollup(table, unit) for table, unit in rollups.TABLES),
        *(lambda month=month: _make_month(month) for month in months),
    ]
    _run_all(jobs)
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE bench_cells")
        cursor.execute("SET statement_timeout = 0")
        cursor.execute("SELECT count(*) FROM api_usage")
        count = cursor.fetchone()[0]
        for table in ("api_usage", "usage_hourly", "usage_daily"):
            cursor.execute(f"ANALYZE {table}")
    seconds = time.monotonic() - began
    _compare_shapes(months)
    # Two days by the product's own comparison.
    for day in (start, start + dt.timedelta(days=DAYS // 2)):
        if odd := rollups.differences(day, day):
            raise RuntimeError(odd[:3])
    return {"rows": count, "seconds": round(seconds, 1)}


def _make_cells(rows: int, start: dt.date, *, keys_each: int) -> None:
    keys = list(ApiKey.objects.order_by("partner_id", "pk").values_list("pk", "partner_id"))
    combinations = DAYS * len(keys) * KINDS
    facts: dict[str, Any] = {
        "start": start,
        "days": DAYS,
        # Fewer requests than keys and kinds a day: one hour, and not all of them.
        "hours": min(HOURS, max(1, rows // combinations)),
        "rows": rows,
        "partners": list(dict.fromkeys(partner for _, partner in keys)),
        "keys": [key for key, _ in keys],
        "keys_each": keys_each,
        "holders": len(keys),
    }
    with connection.cursor() as cursor:
        cursor.execute(_CELLS, facts)
        cursor.execute(
            "DELETE FROM bench_cells WHERE hashtext(id) %% %s <> 0", [max(1, combinations // rows)]
        )
        cursor.execute("ANALYZE bench_cells")


def _make_rollup(table: str, unit: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        _take_time(cursor)
        cursor.execute(rollups.adding_cells_sql(table, _COUNTED.format(unit=unit)))


def _make_month(month: Month) -> None:
    start, end = month.start.isoformat(), month.plus(1).start.isoformat()
    with transaction.atomic(), connection.cursor() as cursor:
        _take_time(cursor)
        # Where Postgres keeps no more log than it needs for itself, what is new in a transaction needs none.
        cursor.execute(
            f"CREATE TABLE {month.table} (LIKE api_usage INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
        )
        cursor.execute(_ROWS.format(table=month.table), [month.start, month.plus(1).start])
        cursor.execute(f"ALTER TABLE {month.table} ADD PRIMARY KEY (at, id)")
        cursor.execute(f"CREATE INDEX ON {month.table} (partner_id, at)")
    with transaction.atomic(), connection.cursor() as cursor:
        _take_time(cursor)
        cursor.execute(
            f"ALTER TABLE api_usage ATTACH PARTITION {month.table} FOR VALUES FROM ('{start}') TO ('{end}')"
        )


def _take_time(cursor: Any) -> None:
    for name, value in (
        ("statement_timeout", "0"),
        ("lock_timeout", "0"),
        ("work_mem", "'256MB'"),
        ("maintenance_work_mem", "'512MB'"),
        # All cores have a month of their own to work at.
        ("max_parallel_maintenance_workers", "0"),
        ("max_parallel_workers_per_gather", "0"),
        ("jit", "off"),
    ):
        cursor.execute(f"SET LOCAL {name} = {value}")


def _run_all(jobs: list[Callable[[], None]]) -> None:
    """All of them, in so many sessions as there are cores. Raises RuntimeError when one failed."""
    waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    failed: list[Exception] = []

    def work() -> None:
        try:
            while not failed:
                waiting.get_nowait()()
        except queue.Empty:
            pass
        except Exception as error:  # noqa: BLE001 - told by the thread that waits
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(_SESSIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        message = "the request log could not be filled"
        raise RuntimeError(message) from failed[0]


def _compare_shapes(months: list[Month]) -> None:
    """Columns, constraints and indexes are those of a month that the product has made."""
    theirs = max(partitions.existing()).plus(1)
    partitions.make([theirs])
    with connection.cursor() as cursor:

        def shape(month: Month) -> list[Any]:
            cursor.execute(_SHAPE, {"table": month.table})
            found: list[Any] = cursor.fetchall()
            return found

        wanted = shape(theirs)
        odd = [month.table for month in months if shape(month) != wanted]
    if odd:
        message = f"{odd} are not what the product makes"
        raise RuntimeError(message)


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()
