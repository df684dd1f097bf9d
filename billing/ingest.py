"""Stores rows of the request log together with what they add to the rollups: both, or neither.

A row that is stored already adds nothing again, so the same file may be stored any number of times; and
because only rows that are new add to the rollups, these are always exactly the log's sums: there is
nothing to catch up on, late rows included. Writers take turns (a lock that the transaction holds), so
that a rollup's rows are never waited for in different orders.
"""

import datetime as dt
import ipaddress
import json
import math
import uuid
from collections.abc import Sequence
from typing import Any, Final

from django.db import DataError, connection, transaction

from billing import agreed_units, metrics, requests_quota
from billing.agreed_units import BY_TYPE
from billing.rollups import LOCK, adding_sql

FIELDS: Final = (
    ("id", "uuid"),
    ("at", "timestamptz"),
    ("partner_id", "uuid"),
    ("key_id", "uuid"),
    ("livemode", "boolean"),
    ("method", "text"),
    ("route", "text"),
    ("status", "smallint"),
    ("error_code", "text"),
    ("latency_ms", "float8"),
    ("cost_units", "integer"),
    ("deeds", "integer"),
    ("deed_type", "text"),
    ("deed_id", "uuid"),
    ("bytes_in", "bigint"),
    ("bytes_out", "bigint"),
    ("address", "inet"),
    ("request_id", "text"),
)
_COLUMNS: Final = ", ".join(name for name, _ in FIELDS)
_TYPED: Final = ", ".join(f"{name} {kind}" for name, kind in FIELDS)
_STORE: Final = f"""
WITH stored AS (
  INSERT INTO api_usage ({_COLUMNS})
  SELECT {_COLUMNS} FROM jsonb_to_recordset(%s::jsonb) AS given({_TYPED})
  ON CONFLICT DO NOTHING
  RETURNING {_COLUMNS}
), hourly AS ({adding_sql("usage_hourly", "hour", "stored")}),
daily AS ({adding_sql("usage_daily", "day", "stored")})
SELECT count(*), partner_id, date_trunc('hour', at, 'UTC'), livemode, status
FROM stored GROUP BY 2, 3, 4, 5
"""  # noqa: S608 - names of our own
MIXED: Final = "mixed"
_MAX_INT: Final = 2**31 - 1
_MAX_BIGINT: Final = 2**62
_LENGTHS: Final = {"method": 10, "route": 120, "error_code": 40, "deed_type": 20, "request_id": 128}
# A clock that is further off than this is no clock; such a row keeps its place in the calendar's range.
_EARLIEST: Final = dt.datetime(2020, 1, 1, tzinfo=dt.UTC).timestamp()
_LATEST: Final = dt.datetime(2200, 1, 1, tzinfo=dt.UTC).timestamp()


def store(lines: Sequence[bytes]) -> int:
    """How many of these lines of a spool were new. Lines that are no rows are counted and passed over."""
    rows = [row for line in lines if line and (row := _read(line)) is not None]
    if not rows:
        return 0
    agreed_units.apply(rows)
    try:
        return _store(rows)
    except DataError:
        # One row that Postgres refuses must not hold up all that were written after it.
        return sum(_store_alone(row) for row in rows)


def _store(rows: list[dict[str, Any]]) -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        cursor.execute(_STORE, [json.dumps(rows)])
        new = cursor.fetchall()
        requests_quota.count(_counted(new))
    stored = sum(int(count) for count, *_ in new)
    metrics.usage_rows_stored.inc(stored)
    return stored


def _counted(new: list[Any]) -> dict[tuple[uuid.UUID, dt.datetime], int]:
    """How many of the new rows count against their partner's request quota, by partner and hour."""
    counted: dict[tuple[uuid.UUID, dt.datetime], int] = {}
    for count, partner_id, hour, livemode, status in new:
        if partner_id is not None and requests_quota.is_counted(livemode=bool(livemode), status=status):
            counted[partner_id, hour] = counted.get((partner_id, hour), 0) + count
    return counted


def _store_alone(row: dict[str, Any]) -> int:
    try:
        return _store([row])
    except DataError:
        metrics.usage_rows_unreadable.inc()
        return 0


def _read(line: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
        row = dict(zip((name for name, _ in FIELDS), values, strict=True))
        return _checked(row)
    except (ValueError, TypeError, RecursionError):
        metrics.usage_rows_unreadable.inc()
        return None


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    """The row as Postgres takes it. Raises ValueError or TypeError for what no writer of ours wrote."""
    for name in ("id", "partner_id", "key_id", "deed_id"):
        if row[name] is not None or name == "id":
            row[name] = str(uuid.UUID(row[name]))
    at = min(max(float(row["at"]), _EARLIEST), _LATEST)
    row["at"] = dt.datetime.fromtimestamp(at, dt.UTC).isoformat()
    row[BY_TYPE], row["deed_type"] = _types_of(row)
    row["livemode"] = row["livemode"] if row["livemode"] is None else bool(row["livemode"])
    for name, length in _LENGTHS.items():
        row[name] = str(row[name])[:length].replace("\x00", "")
    row["status"] = _bounded(row["status"], 999)
    for name in ("cost_units", "deeds"):
        row[name] = _bounded(row[name], _MAX_INT)
    for name in ("bytes_in", "bytes_out"):
        row[name] = _bounded(row[name], _MAX_BIGINT)
    latency = float(row["latency_ms"])
    row["latency_ms"] = max(latency, 0.0) if math.isfinite(latency) else 0.0
    if row["address"] is not None:
        row["address"] = str(ipaddress.ip_address(row["address"]))
    return row


def _types_of(row: dict[str, Any]) -> tuple[dict[str, int], str]:
    """The row's new deeds by type, and what its column says: one type, or that there were several."""
    given = row["deed_type"]
    if isinstance(given, dict):
        return {str(name): _bounded(count, _MAX_INT) for name, count in given.items()}, MIXED
    deeds = _bounded(row["deeds"], _MAX_INT)
    return ({str(given): deeds} if deeds else {}), given


def _bounded(value: Any, most: int) -> int:
    return min(max(int(value), 0), most)
