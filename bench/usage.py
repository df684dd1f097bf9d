"""Whether questions about usage stay as fast as the request log grows, and what writing it costs.

Two databases on one Postgres, one with ten thousand requests of three months and one with ten million, are
asked the same by turns, each by a process of its own. Rows are made by Postgres itself: first how many of
what kind (cells), of which the product's own statement makes the rollups, then each as a row of the log.
"""

import datetime as dt
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any, Final

from bench.harness import Bench, Figure, at_least, at_most, facts

PARTNERS: Final = 50
KEYS_PER_PARTNER: Final = 2
DAYS: Final = 90
HOURS: Final = 10
KINDS: Final = 4
SMALL: Final = 10_000
LARGE: Final = 10_000_000
ROUNDS: Final = 4
TIMES: Final = 50
USAGE: Final = "usage"
STAFF: Final = "admin_usage"

# An office's hours; a key does four kinds of things in each, most of them well.
_CELLS: Final = """
CREATE TEMP TABLE cells AS
SELECT %(start)s::date::timestamp AT TIME ZONE 'UTC' + interval '1 day' * day + interval '1 hour' * hour
    AS moment,
  (28 + (day + hour + who * 7 + what * 5) %% 30)::smallint AS bucket,
  ((%(partners)s)::uuid[])[1 + who / %(keys_each)s] AS partner_id, ((%(keys)s)::uuid[])[1 + who] AS key_id,
  true AS livemode, CASE WHEN what = 0 THEN 'POST' ELSE 'GET' END::text AS method,
  (ARRAY['/v2/deeds', '/v2/deeds', '/v2/deeds/{deed_id}', '/v2/deeds/{deed_id}/pdf'])[1 + what] AS route,
  (CASE WHEN (day + who) %% 17 = 0 AND what = 3 THEN 429 WHEN what = 0 THEN 202 ELSE 200 END)::smallint
    AS status,
  CASE WHEN what = 0 THEN 'grant' ELSE '' END::text AS deed_type,
  greatest(1, round(%(rows)s / (%(days)s * %(hours)s * %(holders)s * 4.0)))::bigint AS requests
FROM generate_series(0, %(days)s - 1) AS day, generate_series(8, 7 + %(hours)s) AS hour,
  generate_series(0, %(holders)s - 1) AS who, generate_series(0, 3) AS what
ORDER BY moment
"""
_COUNTED: Final = """
CREATE TEMP TABLE counted_{unit} AS
SELECT date_trunc('{unit}', moment, 'UTC') AS moment, bucket, partner_id, key_id, livemode, method, route,
  status, deed_type, sum(requests)::bigint AS requests,
  coalesce(sum(requests) FILTER (WHERE status >= 400), 0) AS errors,
  coalesce(sum(requests) FILTER (WHERE status = 429), 0) AS rate_limited,
  CASE WHEN method = 'POST' THEN sum(requests) ELSE 0 END AS deeds, sum(requests) AS cost_units,
  0 AS bytes_in, 500 * sum(requests) AS bytes_out
FROM cells GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
"""
_ROWS: Final = """
INSERT INTO {table} (at, id, partner_id, key_id, livemode, method, route, status, error_code, latency_ms,
  cost_units, deeds, deed_type, bytes_in, bytes_out, address, request_id)
SELECT moment + n * interval '1 ms', gen_random_uuid(), partner_id, key_id, livemode, method, route, status,
  '', 2 ^ ((bucket - 0.5) / 8), 1, (method = 'POST')::int, deed_type, 0, 500, '203.0.113.7', 'req_bench'
FROM cells, generate_series(1, requests) AS n WHERE moment >= %s AND moment < %s
"""


def run(bench: Bench) -> list[Figure]:
    found = measure(bench.database("usage_small"))
    rows, seconds = found["filled"]["large"]["count"], found["filled"]["large"]["rows"]
    figures = []
    for question in (USAGE, STAFF):
        last = {f"{size}_p99_ms": times["p99"] for size, times in found[f"{question}_ms"].items()}
        name = f"{question}_10m_vs_10k"
        figures.append(at_most(name, found[name], 2, facts(rows=rows, fill_seconds=seconds, **last)))
    rates = {name: found[name] for name in ("with_per_second", "without_per_second")}
    return [*figures, at_least("metering_overhead", found["metering_overhead"], 0.9, facts(**rates))]


def make_holders() -> None:
    """The partners, and their keys. Prints the key that asks."""
    from bench.orders import FAST
    from keys.models import ApiKey, Partner

    for number in range(PARTNERS):
        partner = Partner.objects.create(name=f"Bench {number}")
        for _ in range(KEYS_PER_PARTNER):
            _, text = ApiKey.issue(partner, name="Bench", environment="live", scopes=["usage:read"], **FAST)
    print(text)


def fill(rows: int) -> dict[str, float]:
    """Makes about so many requests of the last 90 days, and their rollups; the seconds each took."""
    from django.db import connection, transaction

    from billing import partitions, rollups
    from billing.partitions import Month
    from keys.models import ApiKey

    keys = list(ApiKey.objects.order_by("partner_id", "pk").values_list("pk", "partner_id"))
    combinations = DAYS * len(keys) * KINDS
    start = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=DAYS - 1)
    first = Month(start.year, start.month)
    months = [first.plus(number) for number in range(4)]
    seconds: dict[str, float] = {}
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        cursor.execute("SET LOCAL synchronous_commit = off")
        cursor.execute("SET LOCAL work_mem = '256MB'")
        cursor.execute("SET LOCAL maintenance_work_mem = '512MB'")
        began = time.monotonic()
        cursor.execute(
            _CELLS,
            {
                "start": start,
                "days": DAYS,
                # Fewer requests than keys and kinds a day: one hour, and not all of them.
                "hours": min(HOURS, max(1, rows // combinations)),
                "rows": rows,
                "partners": list(dict.fromkeys(partner for _, partner in keys)),
                "keys": [key for key, _ in keys],
                "keys_each": KEYS_PER_PARTNER,
                "holders": len(keys),
            },
        )
        cursor.execute(
            "DELETE FROM cells WHERE hashtext(moment::text || key_id::text || route) %% %s <> 0",
            [max(1, combinations // rows)],
        )
        for table, unit in rollups.TABLES:
            cursor.execute(_COUNTED.format(unit=unit))
            cursor.execute(rollups.adding_cells_sql(table, f"counted_{unit}"))
        seconds["rollups"] = time.monotonic() - began
        began = time.monotonic()
        for month in months:
            # Without indexes and log until it is full, as one would load a month.
            cursor.execute(f"DROP TABLE IF EXISTS {month.table}")
            cursor.execute(f"CREATE UNLOGGED TABLE {month.table} (LIKE api_usage INCLUDING CONSTRAINTS)")
            cursor.execute(_ROWS.format(table=month.table), [month.start, month.plus(1).start])
            cursor.execute(
                f"ALTER TABLE api_usage ATTACH PARTITION {month.table}"
                f" FOR VALUES FROM ('{month.start}') TO ('{month.plus(1).start}')"
            )
        seconds["rows"] = time.monotonic() - began
        cursor.execute("SELECT count(*) FROM api_usage")
        seconds["count"] = cursor.fetchone()[0]
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE usage_hourly")
        cursor.execute("ANALYZE usage_daily")
    partitions.make([Month.of(dt.datetime.now(dt.UTC))])
    # Three days by the product's own comparison: what was filled in is what the product would have made.
    odd = rollups.differences(start, start + dt.timedelta(days=2))
    if odd:
        raise RuntimeError(odd[:3])
    return seconds


def ask(key: str) -> dict[str, list[float]]:
    """Milliseconds of each question, through the whole of the product but the socket."""
    from django.test import Client

    from billing import usage
    from billing.usage_query import StaffUsageQuery, answer

    client = Client()
    headers = {"Authorization": f"Bearer {key}"}
    times: dict[str, list[float]] = {USAGE: [], STAFF: []}
    for number in range(TIMES + 5):
        began = time.perf_counter()
        reply = client.get("/v2/usage", headers=headers)
        middle = time.perf_counter()
        question = usage.Question(StaffUsageQuery().range(), "day")
        json.dumps(answer(question, usage.series(question)))
        if reply.status_code != 200:
            raise RuntimeError(reply.content)
        if number >= 5:  # the first ones load what the others find loaded
            times[USAGE].append((middle - began) * 1000)
            times[STAFF].append((time.perf_counter() - middle) * 1000)
    return times


def overhead(key: str) -> dict[str, float]:
    """`metering_overhead`: requests a second with the request log against without, by turns in one process.

    Nothing but the product's own work is in both: no socket, no server. The thread that stores rows runs.
    """
    from django.conf import settings
    from django.test import Client, override_settings

    without = [name for name in settings.MIDDLEWARE if "RequestLog" not in name]
    headers = {"Authorization": f"Bearer {key}"}
    clients = {}
    for name, middleware in (("with", settings.MIDDLEWARE), ("without", without)):
        with override_settings(MIDDLEWARE=middleware):
            clients[name] = Client()
            clients[name].get("/v2/usage?interval=hour", headers=headers)  # its middleware is loaded now

    def turn(name: str) -> float:
        began = time.perf_counter()
        for _ in range(TIMES):
            clients[name].get("/v2/usage?interval=hour", headers=headers)
        return TIMES / (time.perf_counter() - began)

    turns = [(turn("with"), turn("without")) for _ in range(ROUNDS * 5)]
    return {
        "metering_overhead": round(statistics.median(one / two for one, two in turns), 3),
        "with_per_second": round(max(one for one, _ in turns)),
        "without_per_second": round(max(two for _, two in turns)),
    }


def measure(database: str) -> dict[str, Any]:
    """`usage_10m_vs_10k` and `admin_usage_10m_vs_10k`: p99 against p99, and what they are made of.

    Needs the address of a database that is empty and migrated, on a server that may have another.
    """
    server, _, name = database.rpartition("/")
    key = _run("make_holders", f"{server}/{name}").strip()
    _sql(f"{server}/postgres", f"CREATE DATABASE {name}_large TEMPLATE {name}")
    databases = {"small": f"{server}/{name}", "large": f"{server}/{name}_large"}
    filled = {
        size: json.loads(_run("fill", databases[size], rows))
        for size, rows in (("small", SMALL), ("large", LARGE))
    }
    times: dict[str, dict[str, list[float]]] = {size: {USAGE: [], STAFF: []} for size in databases}
    for _ in range(ROUNDS):
        for size, url in databases.items():
            for question, found in json.loads(_run("ask", url, key)).items():
                times[size][question] += found
    figures: dict[str, Any] = {"filled": filled, **json.loads(_run("overhead", databases["small"], key))}
    for question in (USAGE, STAFF):
        last = {size: statistics.quantiles(times[size][question], n=100)[98] for size in databases}
        figures[f"{question}_10m_vs_10k"] = round(last["large"] / last["small"], 3)
        figures[f"{question}_ms"] = {
            size: {"p50": round(statistics.median(times[size][question]), 2), "p99": round(last[size], 2)}
            for size in databases
        }
    return figures


def _run(function: str, database: str, *arguments: Any) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "bench.usage", function, *map(str, arguments)],
        env={**os.environ, "DATABASE_URL": database, "LOG_LEVEL": "ERROR"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def _sql(database: str, statement: str) -> None:
    import psycopg

    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(statement)


if __name__ == "__main__":
    import django

    django.setup()
    match sys.argv[1:]:
        case ["make_holders"]:
            make_holders()
        case ["fill", rows]:
            print(json.dumps(fill(int(rows))))
        case ["ask", key]:
            print(json.dumps(ask(key)))
        case ["overhead", key]:
            print(json.dumps(overhead(key)))
        case []:
            print(json.dumps(measure(os.environ["DATABASE_URL"]), indent=2))
