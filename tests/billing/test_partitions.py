"""The months of the request log: made ahead, dropped after their retention."""

import datetime as dt
from collections.abc import Callable
from typing import Any

from django.db import connection

from billing import retention
from billing.models import ApiUsage, UsageDaily
from billing.spool import Spool
from tests.billing.rows import a_row, line, metric

Logged = Callable[[], list[ApiUsage]]


def test_a_month_without_partition_loses_nothing_and_is_mended(
    spool: Spool, logged: Logged, db: None
) -> None:
    now = dt.datetime(2031, 5, 10, tzinfo=dt.UTC)
    spool.append(line(a_row(at=now.timestamp())))
    assert len(logged()) == 1
    assert _count("api_usage_default") == 1
    retention.keep(now)
    assert (_count("api_usage_default"), _count("api_usage_2031_05")) == (0, 1)
    assert len(logged()) == 1
    retention.keep(now)
    assert metric("partner_api_usage_rows_without_partition") == 0


def test_a_month_that_was_missed_is_made_later(spool: Spool, logged: Logged, db: None) -> None:
    retention.keep(dt.datetime(2031, 1, 10, tzinfo=dt.UTC))
    missed = dt.datetime(2031, 5, 31, 23, 59, tzinfo=dt.UTC)
    spool.append(line(a_row(at=missed.timestamp())))
    logged()
    retention.keep(dt.datetime(2031, 7, 10, tzinfo=dt.UTC))
    assert (_count("api_usage_default"), _count("api_usage_2031_05")) == (0, 1)
    assert metric("partner_api_usage_rows_without_partition") == 0


def test_rows_of_a_wrong_clock_call_nobody_for_ever(spool: Spool, logged: Logged, db: None) -> None:
    now = dt.datetime(2031, 5, 10, tzinfo=dt.UTC)
    spool.append(line(a_row(at=dt.datetime(2199, 1, 1, tzinfo=dt.UTC).timestamp())))
    logged()
    retention.keep(now)
    assert _count("api_usage_default") == 1
    assert metric("partner_api_usage_rows_without_partition") == 0


def test_months_are_made_ahead_and_dropped_after_their_retention(
    spool: Spool, logged: Logged, db: None, settings: Any
) -> None:
    settings.USAGE_RETENTION_MONTHS = 2
    now = dt.datetime(2031, 12, 31, 23, 59, tzinfo=dt.UTC)
    for months in range(4):
        retention.keep(now - dt.timedelta(days=31 * months))
    for day in (dt.datetime(2031, 9, 30, tzinfo=dt.UTC), dt.datetime(2031, 10, 1, tzinfo=dt.UTC)):
        spool.append(line(a_row(at=day.timestamp())))
    assert len(logged()) == 2
    retention.keep(now)
    assert [row.at.month for row in logged()] == [10]
    assert _tables() >= {"api_usage_2032_03", "api_usage_2031_10"}
    assert "api_usage_2031_09" not in _tables()
    # What the dropped month came to is still known.
    assert UsageDaily.objects.filter(level=7).count() == 2


def _count(table: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")  # noqa: S608 - a name of this file
        return int(cursor.fetchone()[0])


def _tables() -> set[str]:
    with connection.cursor() as cursor:
        return {info.name for info in connection.introspection.get_table_list(cursor)}
