"""Stores rows of the request log together with what they add to the rollups: both, or neither.

A row that is stored already adds nothing again, so the same file may be stored any number of times; and
because only rows that are new add to the rollups, these are always exactly the log's sums: there is
nothing to catch up on, late rows included. Writers take turns at the rollups (a lock that the transaction
holds), so that a rollup's rows are never waited for in different orders.

Postgres reads the lines itself: doing so here would cost the requests of this process more than all else
that becomes of their rows. It gets them a few at a time, with pauses: where all of some seconds are one
statement, it takes a core for as long as several requests, and they are late.
"""

import datetime as dt
import time
import uuid
from collections.abc import Sequence
from typing import Any, Final

from django.db import DataError, IntegrityError, OperationalError, transaction
from psycopg.errors import ProgramLimitExceeded, StatementTooComplex

from billing import agreed_units, metrics, requests_quota
from billing.partitions import LOCK
from billing.rollups import adding_cells_sql, cells_sql, days_sql, given_cells_sql
from partner_api import prepared

MIXED: Final = "mixed"
# Rows of one statement: about two milliseconds' work for Postgres, and a pause in which requests go first.
_PIECE: Final = 128
_PAUSE_SECONDS: Final = 0.01
# Held from the rollups on until the transaction ends.
_TURN: Final = 0x726F6C6C7570  # "rollup"
_TOO_MUCH: Final = (ProgramLimitExceeded, StatementTooComplex)
# A clock that is further off than this is no clock; such a row keeps its place in the calendar's range.
_EARLIEST: Final = dt.datetime(2020, 1, 1, tzinfo=dt.UTC).timestamp()
_LATEST: Final = dt.datetime(2200, 1, 1, tzinfo=dt.UTC).timestamp()


def _text(length: int) -> str:
    return f"left({{}}, {length})"


def _number(kind: str, most: int) -> str:
    return f"least(greatest({{}}::numeric, 0), {most})::{kind}"


# The columns in a line's order, and how a member of the line becomes one. What is out of bounds is brought
# within them; what is of another kind makes Postgres refuse the statement.
FIELDS: Final = (
    ("id", "{}::uuid"),
    ("at", f"to_timestamp(least(greatest({{}}::float8, {_EARLIEST}), {_LATEST}))"),
    ("partner_id", "{}::uuid"),
    ("key_id", "{}::uuid"),
    ("livemode", "{}::boolean"),
    ("method", _text(10)),
    ("route", _text(120)),
    ("status", _number("smallint", 999)),
    ("error_code", _text(40)),
    ("latency_ms", "greatest({}::float8, 0)"),
    ("cost_units", _number("integer", 2**31 - 1)),
    ("deeds", _number("integer", 2**31 - 1)),
    # Several types by their numbers, where a request made deeds of several.
    (
        "deed_type",
        f"left(CASE jsonb_typeof(line->{{place}}) WHEN 'object' THEN '{MIXED}' ELSE {{}} END, 20)",
    ),
    ("deed_id", "{}::uuid"),
    ("bytes_in", _number("bigint", 2**32)),
    ("bytes_out", _number("bigint", 2**32)),
    ("address", "{}::inet"),
    ("request_id", _text(128)),
)
_COLUMNS: Final = ", ".join(name for name, _ in FIELDS)
_NAMES: Final = [name for name, _ in FIELDS]
_READ: Final = ", ".join(
    sql.format(f"(line->>{place})", place=place) for place, (_, sql) in enumerate(FIELDS)
)
_STORE: Final = f"""
WITH stored AS (
  INSERT INTO api_usage ({_COLUMNS})
  SELECT {_READ} FROM jsonb_array_elements(%s::jsonb) AS given(line)
  ON CONFLICT DO NOTHING
  RETURNING {_COLUMNS}
), cells AS ({cells_sql("hour", "stored")})
SELECT to_jsonb(cells)::text FROM cells
"""  # noqa: S608 - names of our own
_ADD: Final = f"""
WITH cells AS ({given_cells_sql("%s::jsonb")}),
hourly AS ({adding_cells_sql("usage_hourly", "cells")}),
daily AS ({adding_cells_sql("usage_daily", f"({days_sql('cells')}) AS by_day")})
SELECT sum(requests)::bigint, partner_id, moment, livemode, status
FROM cells GROUP BY 2, 3, 4, 5
"""  # noqa: S608 - names of our own


def store(lines: Sequence[bytes]) -> int:
    """How many of these lines of a spool were new. Lines that are no rows are counted and passed over."""
    lines = [line for line in lines if line]
    return _store_apart(agreed_units.apply(lines, _NAMES)) if lines else 0


def _store_apart(lines: Sequence[bytes]) -> int:
    """One line that is no row must not hold up all that were written after it."""
    try:
        return _store(lines)
    except (UnicodeDecodeError, DataError, IntegrityError, OperationalError) as error:
        if not _is_of_a_line(error):
            raise
        if len(lines) == 1:
            return _store_alone(lines[0])
        middle = len(lines) // 2
        return _store_apart(lines[:middle]) + _store_apart(lines[middle:])


def _store(lines: Sequence[bytes]) -> int:
    pieces = [b"[" + b",".join(lines[at : at + _PIECE]) + b"]" for at in range(0, len(lines), _PIECE)]
    cells: list[str] = []
    # Planning the statements would take longer than running them.
    with transaction.atomic(), prepared.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock_shared(%s::bigint)", [LOCK])
        for piece in pieces:
            cursor.execute(_STORE, [piece.decode()])
            cells += [cell for (cell,) in cursor.fetchall()]
            if len(pieces) > 1:
                time.sleep(_PAUSE_SECONDS)
        cursor.execute("SELECT pg_advisory_xact_lock(%s::bigint)", [_TURN])
        cursor.execute(_ADD, [f"[{','.join(cells)}]"])
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


def _store_alone(line: bytes) -> int:
    """A line that was refused: without the one character that JSON may hold and Postgres may not."""
    try:
        return _store([line.replace(b"\\u0000", b"")])
    except (UnicodeDecodeError, DataError, IntegrityError, OperationalError) as error:
        if not _is_of_a_line(error):
            raise
        metrics.usage_rows_unreadable.inc()
        return 0


def _is_of_a_line(error: Exception) -> bool:
    """Whether a line is wrong and not the database: nested too deep, or too large, is told as the latter."""
    return not isinstance(error, OperationalError) or isinstance(error.__cause__, _TOO_MUCH)
