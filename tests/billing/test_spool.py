"""Rows on their way from the spool to Postgres: none lost, none twice, whatever fails."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import OperationalError

from billing import draining, ingest
from billing.models import ApiUsage, UsageDaily
from billing.spool import Spool
from tests.api import Api
from tests.billing.rows import a_row, line, metric

Logged = Callable[[], list[ApiUsage]]


def test_nothing_waits_in_the_spool_after_a_drain(api: Api, logged: Logged, spool: Spool) -> None:
    api.get("/v2/deeds")
    assert spool.backlog()[0] > 0
    assert len(logged()) == 1
    assert spool.backlog()[0] == 0
    assert list(spool.folder.iterdir()) == []
    assert draining.drain() == 0


def test_an_unwritable_spool_fails_no_request(api: Api, logged: Logged, spool: Spool) -> None:
    spool.folder.parent.mkdir(parents=True, exist_ok=True)
    spool.folder.write_text("a file is where the folder should be")
    before = metric("partner_api_usage_rows_lost_total", reason="unwritable")
    assert api.get("/v2/deeds").status_code == 200
    assert metric("partner_api_usage_rows_lost_total", reason="unwritable") == before + 1
    spool.folder.unlink()
    assert api.get("/v2/deeds").status_code == 200
    assert len(logged()) == 1


def test_a_full_disk_tears_no_other_row(
    api: Api, logged: Logged, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:20]))
    assert api.get("/v2/deeds").status_code == 200
    monkeypatch.setattr(os, "write", write)
    assert api.get("/v2/deeds").status_code == 200
    assert api.get("/v2/deeds").status_code == 200
    unreadable = metric("partner_api_usage_rows_unreadable_total")
    assert len(logged()) == 2
    assert metric("partner_api_usage_rows_unreadable_total") == unreadable + 1


def test_a_file_that_cannot_be_read_holds_up_no_other(api: Api, logged: Logged, spool: Spool) -> None:
    spool.folder.mkdir(parents=True)
    (spool.folder / "0-a-folder.rows").mkdir()
    before = metric("partner_api_usage_drain_failures_total")
    api.get("/v2/deeds")
    assert len(logged()) == 1
    assert metric("partner_api_usage_drain_failures_total") > before


def test_a_file_that_cannot_be_begun_leaves_nothing(
    api: Api, logged: Logged, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError("No locks available")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", no_locks)
        assert api.get("/v2/deeds").status_code == 200
    assert list(spool.folder.iterdir()) == []
    api.get("/v2/deeds")
    assert len(logged()) == 1


def test_a_spool_has_an_end(api: Api, logged: Logged, spool: Spool) -> None:
    spool.max_bytes = 100
    api.get("/v2/deeds")
    spool.backlog()
    before = metric("partner_api_usage_rows_lost_total", reason="full")
    assert api.get("/v2/deeds").status_code == 200
    assert metric("partner_api_usage_rows_lost_total", reason="full") == before + 1
    assert len(logged()) == 1
    api.get("/v2/deeds")
    assert len(logged()) == 2


def test_while_postgres_is_away_rows_wait(
    api: Api, logged: Logged, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.get("/v2/deeds")

    def away(_: Any) -> Any:
        raise OperationalError

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "_store", away)
        with pytest.raises(OperationalError):
            draining.drain()
        api.get("/v2/deeds")
        # Files don't multiply with the attempts.
        for _ in range(3):
            with pytest.raises(OperationalError):
                draining.drain()
    assert len(list(spool.folder.iterdir())) == 2
    assert len(logged()) == 2


def test_a_drain_that_failed_lets_go_of_its_file(
    api: Api, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.get("/v2/deeds")

    def away(_: Any) -> Any:
        raise OperationalError

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "_store", away)
        with pytest.raises(OperationalError) as kept:
            draining.drain()
    # The exception, with all that its traceback holds, is still alive.
    assert kept.value.__traceback__ is not None
    assert len(logged()) == 1


def test_a_drainer_that_dies_before_it_removes_the_file_stores_nothing_twice(
    api: Api, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        api.get("/v2/deeds")

    def dies(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dies)
        with pytest.raises(KeyboardInterrupt):
            draining.drain()
    assert ApiUsage.objects.count() == 3
    assert len(logged()) == 3
    assert UsageDaily.objects.get(level=7).requests == 3


def test_a_damaged_file_gives_what_is_whole(spool: Spool, logged: Logged, db: None) -> None:
    good = a_row()
    spool.folder.mkdir(parents=True)
    odd = [
        b"",
        b"\x00\xff",
        b"[]",
        b"[1,2]",
        b"{",
        b'"text"',
        b"[" * 5000,
        b"[" * 100_000,
        line(a_row(id="no")),
    ]
    lines = [*odd, line(good), line(a_row(status="much")), b'["torn at the e']
    (spool.folder / "1-host-1-x.rows").write_bytes(b"\n".join(lines))
    assert [str(row.id) for row in logged()] == [good[0]]


def test_values_out_of_bounds_are_brought_within(spool: Spool, logged: Logged, db: None) -> None:
    spool.append(
        line(
            a_row(
                at=9e12, status=-1, latency_ms=-5.0, bytes_in=2**80, error_code="é\x00" * 100, route="r" * 999
            )
        )
    )
    [row] = logged()
    assert (row.at.year, row.status, row.latency_ms, row.bytes_in) == (2200, 0, 0.0, 2**32)
    assert len(row.route) == 120


def test_rows_that_postgres_refuses_hold_up_no_other(spool: Spool, logged: Logged, db: None) -> None:
    good = [a_row() for _ in range(9)]
    for position, row in enumerate(good):
        if position in {0, 4, 5, 8}:
            spool.append(line(a_row(address="nonsense")))
        spool.append(line(row))
    before = metric("partner_api_usage_rows_unreadable_total")
    assert {str(row.id) for row in logged()} == {row[0] for row in good}
    assert metric("partner_api_usage_rows_unreadable_total") == before + 4


def test_a_forked_process_writes_a_file_of_its_own(spool: Spool, logged: Logged, db: None) -> None:
    spool.append(line(a_row()))
    child = os.fork()
    if child == 0:
        is_written = spool.append(line(a_row()))
        os._exit(0 if is_written else 1)
    assert os.waitpid(child, 0)[1] == 0
    spool.append(line(a_row()))
    assert len(list(spool.folder.iterdir())) == 2
    assert len(logged()) == 3


def test_a_file_that_a_living_process_writes_to_is_left_to_it(spool: Spool, logged: Logged, db: None) -> None:
    code = (
        "import sys, pathlib; from billing.spool import Spool;"
        "Spool(pathlib.Path(sys.argv[1]), max_bytes=10**6).append(sys.argv[2].encode());"
        "print('written', flush=True); sys.stdin.read()"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(spool.folder), line(a_row())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=django_settings.BASE_DIR,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"written\n"
    assert logged() == []
    writer.kill()
    writer.communicate()
    assert len(logged()) == 1
