"""The rollups are the log's sums: at any moment, however often and in whatever order rows arrive."""

import datetime as dt
import math
import random
import threading
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from billing import ingest, partitions, rollups
from billing.latency import LAST, middle_of, percentiles
from billing.models import ApiUsage, Level, UsageDaily, UsageHourly
from billing.partitions import Month
from keys.models import Partner
from tests.api import Api
from tests.billing.rows import Row, a_row, line, log, requests

NOON = dt.datetime(2026, 11, 24, 12, 0, tzinfo=dt.UTC)
DAY = NOON.date()


BYTES_OUT = [name for name, _ in ingest.FIELDS].index("bytes_out")


def _differences() -> list[dict[str, Any]]:
    return rollups.differences(dt.date(2026, 11, 1), dt.date(2026, 11, 30))


def _some(seed: int, number: int, apis: list[Api]) -> list[Row]:
    chance = random.Random(seed)  # noqa: S311 - the same numbers in each run
    several: list[Api | None] = [*apis, None]
    rows = []
    for _ in range(number):
        api = chance.choice(several)
        rows.append(
            a_row(
                partner=api.partner if api else None,
                key=api.key if api else None,
                at=NOON + dt.timedelta(minutes=chance.randrange(-2000, 2000)),
                status=chance.choice([200, 202, 404, 429, 500]),
                route=chance.choice(["/v2/deeds", "/v2/usage", ""]),
                latency_ms=math.exp(chance.gauss(3, 1.5)),
                deeds=chance.choice([0, 0, 1]),
                bytes_out=chance.randrange(10_000),
            )
        )
    return rows


@pytest.fixture
def apis(api: Api, stranger: Api) -> list[Api]:
    return [api, stranger, Api.of(api.partner, environment="test")]


def test_it_works(api: Api) -> None:
    own = {"partner": api.partner, "key": api.key, "at": NOON}
    log(requests(2, **own), requests(1, **own, status=429, latency_ms=100.0, bytes_in=5))
    total = UsageHourly.objects.get(level=Level.TOTAL)
    assert (total.moment, total.requests, total.errors, total.rate_limited) == (NOON, 3, 1, 1)
    assert (total.cost_units, total.bytes_in, total.bytes_out) == (3, 5, 30)
    assert (total.partner_id, total.key_id, total.route, total.status) == (None, None, None, None)
    assert sorted(total.latency_counts) == [1, 2]
    assert UsageDaily.objects.get(level=Level.PARTNER).partner_id == api.partner.pk
    assert UsageDaily.objects.get(level=Level.KEY).key_id == api.key.pk
    assert UsageDaily.objects.filter(level=Level.ROUTE).count() == 2
    assert UsageDaily.objects.filter(level=Level.FULL).count() == 2
    assert _differences() == []


def test_every_level_has_the_same_sum(apis: list[Api]) -> None:
    rows = _some(1, 200, apis)
    log(rows)
    for model in (UsageHourly, UsageDaily):
        for level in Level:
            found = model.objects.filter(level=level)
            assert sum(one.requests for one in found) == 200
            assert sum(sum(one.latency_counts) for one in found) == 200
            assert sum(one.bytes_out for one in found) == sum(values[BYTES_OUT] for values in rows)
    assert _differences() == []


def test_the_same_rows_again_add_nothing(apis: list[Api]) -> None:
    rows = _some(2, 60, apis)
    assert log(rows) == 60
    before = list(UsageHourly.objects.order_by("id").values())
    assert log(rows) == 0
    assert log(rows + rows) == 0
    assert list(UsageHourly.objects.order_by("id").values()) == before


def test_a_row_twice_in_one_batch_counts_once(db: None) -> None:
    one = a_row(at=NOON)
    assert log([one, one]) == 1
    assert UsageDaily.objects.get(level=Level.TOTAL).requests == 1


def test_many_rows_at_once_are_stored_in_pieces_and_all_or_none(apis: list[Api]) -> None:
    rows = _some(7, 3 * ingest._PIECE + 20, apis)
    assert log(rows[: ingest._PIECE]) == ingest._PIECE
    assert log(rows) == len(rows) - ingest._PIECE, "what was stored before adds nothing"
    assert ApiUsage.objects.count() == len(rows)
    assert _differences() == []
    broken = [line(values) for values in _some(8, 2 * ingest._PIECE, apis)]
    broken[-3] = b'["this is no row"]'
    assert ingest.store(broken) == len(broken) - 1, "one that is no row costs no other"
    assert _differences() == []


def test_late_rows_are_in_their_hour_at_once(db: None) -> None:
    log(requests(1, at=NOON))
    log(requests(2, at=NOON - dt.timedelta(days=3, minutes=1)), requests(1, at=NOON))
    hours = UsageHourly.objects.filter(level=Level.TOTAL).order_by("moment")
    assert [(one.moment.day, one.moment.hour, one.requests) for one in hours] == [(21, 11, 2), (24, 12, 2)]
    assert _differences() == []


def test_a_clock_that_is_wrong_moves_rows_and_loses_none(db: None) -> None:
    log(requests(1, at=NOON + dt.timedelta(days=4000)), requests(1, at=NOON - dt.timedelta(days=4000)))
    assert ApiUsage.objects.count() == 2
    assert UsageDaily.objects.filter(level=Level.TOTAL).count() == 2
    far = (Month(2020, 1), Month(2200, 1))
    assert partitions.rows_without_partition(*far) == 2


def test_batches_in_any_order_come_to_the_same(apis: list[Api]) -> None:
    rows = _some(3, 120, apis)
    random.Random(4).shuffle(rows)  # noqa: S311 - the same
    for first in range(0, 120, 7):
        log(rows[first : first + 7])
    assert _differences() == []


def test_rebuilding_changes_nothing_however_often(apis: list[Api]) -> None:
    log(_some(5, 80, apis))
    columns = ("level", "moment", "partner", "key", "route", "status", "requests", "latency_counts")
    before = sorted(map(str, UsageDaily.objects.values_list(*columns)))
    for _ in range(2):
        call_command("rollup_usage", "--rebuild", "--from=2026-11-22", "--to=2026-11-26")
    assert sorted(map(str, UsageDaily.objects.values_list(*columns))) == before


def test_a_rollup_that_was_tampered_with_is_found_and_made_anew(
    db: None, capsys: pytest.CaptureFixture[str]
) -> None:
    log(requests(3, at=NOON))
    UsageDaily.objects.filter(level=Level.TOTAL).update(requests=5)
    UsageHourly.objects.filter(level=Level.KEY).delete()
    with pytest.raises(CommandError):
        call_command("rollup_usage", "--from=2026-11-24", "--to=2026-11-24")
    said = capsys.readouterr().out
    assert said.count("usage_daily") == 2  # what is there, and what should be
    assert said.count("usage_hourly") == 1
    call_command("rollup_usage", "--rebuild", "--from=2026-11-24", "--to=2026-11-24")
    assert UsageDaily.objects.get(level=Level.TOTAL).requests == 3
    assert _differences() == []


def test_what_is_left_of_a_dropped_month_is_kept(db: None) -> None:
    old = dt.datetime(2026, 1, 10, tzinfo=dt.UTC)
    log(requests(2, at=old))
    partitions.drop_before(Month(2026, 6))
    assert ApiUsage.objects.count() == 0
    rollups.rebuild(dt.date(2026, 1, 1), DAY)
    assert UsageDaily.objects.get(level=Level.TOTAL).requests == 2


def test_a_month_that_is_dropped_while_its_days_are_rebuilt_keeps_their_rollups(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    partitions.make([Month(2026, 8), Month(2026, 9)])
    day = dt.date(2026, 8, 20)
    log(requests(2, at=dt.datetime(2026, 8, 20, tzinfo=dt.UTC)))
    take_turn = rollups._take_turn

    def after_the_drop(cursor: Any) -> None:
        partitions.drop_before(Month(2026, 9))
        take_turn(cursor)

    monkeypatch.setattr(rollups, "_take_turn", after_the_drop)
    assert rollups.rebuild(day, day) == 0
    assert UsageDaily.objects.get(level=Level.TOTAL).requests == 2


def test_rebuilding_a_day_reads_its_month_only(db: None) -> None:
    partitions.make([Month(2026, month) for month in (8, 9, 10)])
    sql = f"EXPLAIN {rollups.summing_sql('day', rollups._of_day())}"
    with connection.cursor() as cursor:
        cursor.execute(sql, rollups._bounds(DAY))
        plan = "\n".join(text for (text,) in cursor.fetchall())
    assert "api_usage_2026_11" in plan
    for other in ("api_usage_2026_08", "api_usage_2026_10", "api_usage_2026_12", "api_usage_default"):
        assert other not in plan


@pytest.mark.django_db(transaction=True)
def test_many_writers_at_once_and_a_rebuild_lose_nothing(acme: Partner) -> None:
    apis = [Api.of(acme) for _ in range(2)]
    parts = [_some(seed, 60, apis) for seed in range(6)]
    failures: list[BaseException] = []

    def write(part: list[Row]) -> None:
        try:
            for first in range(0, 60, 15):
                ingest.store([line(values) for values in part[first : first + 15]])
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)
        finally:
            connection.close()

    def rebuild() -> None:
        try:
            for _ in range(3):
                rollups.rebuild(dt.date(2026, 11, 23), dt.date(2026, 11, 26))
        except BaseException as error:  # noqa: BLE001 - the same
            failures.append(error)
        finally:
            connection.close()

    # Each part twice, as when two processes take up the same file after a crash.
    threads = [threading.Thread(target=write, args=(part,)) for part in [*parts, *parts]]
    threads += [threading.Thread(target=rebuild) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert ApiUsage.objects.count() == 360
    assert UsageDaily.objects.filter(level=Level.FULL).count() > 0
    assert _differences() == []


@pytest.mark.django_db(transaction=True)
def test_two_processes_make_the_same_month_once(acme: Partner) -> None:
    months = [Month(2033, number) for number in range(1, 5)]
    failures: list[BaseException] = []

    def make() -> None:
        try:
            partitions.make(months)
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert failures == []
        assert set(months) <= set(partitions.existing())
    finally:
        with connection.cursor() as cursor:
            for month in months:
                cursor.execute(f"DROP TABLE {month.table}")


@pytest.mark.parametrize("spread", [0.2, 1.0, 2.0])
def test_percentiles_are_off_by_less_than_five_percent(spread: float, db: None) -> None:
    chance = random.Random(int(spread * 10))  # noqa: S311 - the same
    values = sorted(max(1.0, min(60_000.0, math.exp(chance.gauss(3.5, spread)))) for _ in range(1000))
    log([a_row(at=NOON, latency_ms=value) for value in values])
    row = UsageDaily.objects.get(level=Level.TOTAL)
    found = percentiles(dict(zip(row.latency_buckets, row.latency_counts, strict=True)))
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        exact = values[math.ceil(share * 1000) - 1]
        assert found[name] == pytest.approx(exact, rel=0.05, abs=0.06)


@pytest.mark.parametrize("latency", [0.0, 0.4, 1.0, 1.09, 63.9, 64.0, 9_999.0, 131_000.0, 9e12])
def test_every_latency_has_a_bucket(latency: float, db: None) -> None:
    log([a_row(at=NOON, latency_ms=latency)])
    [bucket] = UsageDaily.objects.get(level=Level.TOTAL).latency_buckets
    assert 0 <= bucket <= LAST
    if 1.0 <= latency < 131_000.0:
        assert middle_of(bucket) == pytest.approx(latency, rel=0.045)
