"""Every request leaves one row, whatever became of it and of the processes."""

import datetime as dt
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import OperationalError, connection
from django.test import Client
from prometheus_client import REGISTRY

from billing import draining, ingest, request_log, retention
from billing.models import ApiUsage, UsageDaily
from billing.spool import Spool
from keys.models import Partner
from tests.api import Api
from tests.billing.rows import a_row, line

Logged = Callable[[], list[ApiUsage]]
Orders = Callable[..., dict[str, Any]]


def test_it_works(api: Api, logged: Logged, acme: Partner) -> None:
    answer = api.get("/v2/deeds?status=queued", X_Request_ID="mine-1")
    [row] = logged()
    assert (row.partner_id, row.key_id, row.livemode) == (acme.pk, api.key.pk, True)
    assert (row.method, row.route, row.status, row.error_code) == ("GET", "/v2/deeds", 200, "")
    assert (row.cost_units, row.deeds, row.deed_type) == (1, 0, "")
    assert (row.bytes_in, row.bytes_out) == (0, len(answer.content))
    assert (row.address, row.request_id) == ("127.0.0.1", "mine-1")
    assert row.latency_ms > 0


def test_an_order_is_a_deed_with_its_type_and_its_cost(api: Api, logged: Logged, order: Orders) -> None:
    answer = api.post("/v2/deeds", order("tax"))
    assert answer.status_code == 202
    [row] = logged()
    assert (row.method, row.route, row.status) == ("POST", "/v2/deeds", 202)
    assert (row.deeds, row.deed_type, row.cost_units) == (1, "tax", 11)
    assert row.bytes_in == len(json.dumps(order("tax")))


def test_the_same_order_again_is_no_second_deed(api: Api, logged: Logged, order: Orders) -> None:
    assert [api.post("/v2/deeds", order()).status_code for _ in range(2)] == [202, 200]
    assert [(row.deeds, row.cost_units) for row in logged()] == [(1, 11), (0, 1)]


def test_a_batch_counts_each_new_deed(api: Api, logged: Logged, order: Orders, settings: Any) -> None:
    settings.USAGE_COST_UNITS = {"grant": 7, "POST /v2/deeds/batch": 3}
    bodies = [order(order_id="1"), order(order_id="2"), order("tax", order_id="3"), {"deed_type": "grant"}]
    assert api.post("/v2/deeds/batch", {"orders": bodies}).status_code == 207
    assert api.post("/v2/deeds/batch", {"orders": bodies[:2]}).status_code == 207
    mixed, again = logged()
    assert (mixed.deeds, mixed.deed_type, mixed.cost_units) == (3, "mixed", 3 + 7 + 7 + 10)
    assert (again.deeds, again.deed_type, again.cost_units) == (0, "", 3)


def test_a_first_version_order_is_a_deed(
    api: Api, logged: Logged, order: Orders, settings: Any, main_api: Any
) -> None:
    settings.V1_WAIT_SECONDS = 0.0
    body = {
        "order_id": "V1",
        "property_address": "123 Main St",
        "parties": {"grantor": "ALICE SMITH", "grantee": "BOB JONES"},
        "data": {
            "county": "Los Angeles",
            "apn": "8381-021-001",
            "legal_description": "LOT 1",
            "vesting": "a single man",
            "dtt": {"is_exempt": True, "exemption_reason": "R&T 11930: gift"},
        },
    }
    answer = api.post("/v1/deeds/quitclaim", body)
    assert answer.status_code == 202, answer.content
    [row] = logged()
    assert (row.route, row.deeds, row.deed_type) == ("/v1/deeds/{deed}", 1, "quitclaim")


@pytest.mark.parametrize(
    ("method", "path", "body", "key", "status", "code", "route"),
    [
        ("GET", "/v2/deeds", b"", None, 401, "authentication_required", "/v2/deeds"),
        ("GET", "/v2/deeds", b"", "dp_live_nonsense", 401, "invalid_api_key", "/v2/deeds"),
        ("POST", "/v2/deeds", b"{}", "read", 403, "insufficient_scope", "/v2/deeds"),
        ("GET", f"/v2/deeds/{uuid.UUID(int=7)}", b"", "all", 404, "not_found", "/v2/deeds/{deed_id}"),
        ("GET", "/v2/nothing-here/'; --", b"", None, 404, "not_found", ""),
        ("DELETE", "/v2/deeds", b"", "all", 405, "method_not_allowed", "/v2/deeds"),
        ("POST", "/v2/deeds", b"x" * (1024 * 1024 + 1), "all", 413, "payload_too_large", "/v2/deeds"),
        ("POST", "/v2/deeds", b"{}", "all", 422, "validation_error", "/v2/deeds"),
        ("POST", "/v2/deeds", b"{", "all", 400, "malformed_json", "/v2/deeds"),
    ],
)
def test_a_refused_request_is_logged_with_its_code(
    acme: Partner,
    logged: Logged,
    method: str,
    path: str,
    body: bytes,
    key: str | None,
    status: int,
    code: str,
    route: str,
) -> None:
    own = Api.of(acme, scopes=["*"] if key == "all" else ["deed:read"])
    text = own.text if key in {"all", "read"} else key
    headers = {"Authorization": f"Bearer {text}"} if text else {}
    client = Client(raise_request_exception=False)
    answer = client.generic(method, path, body, content_type="application/json", headers=headers)
    [row] = logged()
    assert (answer.status_code, row.status, row.error_code, row.route) == (status, status, code, route)
    is_known = key in {"all", "read"}
    assert (row.key_id, row.partner_id) == ((own.key.pk, acme.pk) if is_known else (None, None))
    assert row.livemode is (True if is_known else None)
    assert (row.deeds, row.cost_units) == (0, 0 if status == 401 else 1)


def test_a_request_over_the_limit_is_logged_and_free(
    api: Api, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deeds import views
    from partner_api.http.problems import Problem

    def refuse(*_: Any) -> Any:
        raise Problem("rate_limited", "Too many.")

    monkeypatch.setattr(views, "read_query", refuse)
    assert api.get("/v2/deeds").status_code == 429
    [row] = logged()
    assert (row.status, row.error_code, row.key_id, row.cost_units) == (429, "rate_limited", api.key.pk, 0)
    assert UsageDaily.objects.get(level=7).rate_limited == 1


def test_a_crash_is_logged(api: Api, logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    from deeds import views

    monkeypatch.setattr(views, "read_query", lambda *_: 1 / 0)
    assert api.get("/v2/deeds").status_code == 500
    [row] = logged()
    assert (row.status, row.error_code, row.cost_units) == (500, "internal_error", 0)


def test_a_request_that_ends_by_a_signal_is_logged(rf: Any, db: None, logged: Logged) -> None:
    def told_to_stop(_: Any) -> Any:
        raise SystemExit

    with pytest.raises(SystemExit):
        request_log.RequestLogMiddleware(told_to_stop)(rf.get("/v2/deeds"))
    [row] = logged()
    assert (row.status, row.error_code) == (500, "aborted")


def test_pages_probes_and_documents_are_nobodys_usage(client: Client, db: None, logged: Logged) -> None:
    for path in ("/healthz", "/docs/errors", "/schema/", "/admin/login/", "/static/nothing.css"):
        client.get(path)
    assert logged() == []


def test_huge_and_hostile_values_change_nothing(client: Client, db: None, logged: Logged) -> None:
    client.get(
        "/v2/" + "a" * 50_000,
        headers={
            "User-Agent": "x" * 100_000,
            "X-Request-ID": "it's \"quoted\"\n'; DROP TABLE api_usage; --",
            "Content-Length": "9" * 40,
            "X-Forwarded-For": "nonsense",
        },
        REMOTE_ADDR="not an address",
    )
    [row] = logged()
    assert (row.route, row.status, row.bytes_in, row.address) == ("", 404, 0, None)
    assert row.request_id.startswith("req_")


def test_a_test_key_is_logged_as_such(acme: Partner, logged: Logged) -> None:
    Api.of(acme, environment="test").get("/v2/deeds")
    assert [row.livemode for row in logged()] == [False]


def test_a_file_is_logged_with_its_length(
    api: Api, logged: Logged, order: Orders, main_api: Any, client: Client
) -> None:
    from deeds import tasks

    deed_id = api.post("/v2/deeds", order()).json()["id"]
    tasks.render(deed_id)
    url = api.get(f"/v2/deeds/{deed_id}").json()["pdf"]["url"].removeprefix("http://testserver")
    answer: Any = client.get(url)
    content = answer.content
    row = logged()[-1]
    assert (row.route, row.status) == ("/files/deeds/{deed_id}.pdf", 200)
    assert row.bytes_out == len(content) > 1000


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
    before = _metric("partner_api_usage_rows_lost_total", reason="unwritable")
    assert api.get("/v2/deeds").status_code == 200
    assert _metric("partner_api_usage_rows_lost_total", reason="unwritable") == before + 1
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
    unreadable = _metric("partner_api_usage_rows_unreadable_total")
    assert len(logged()) == 2
    assert _metric("partner_api_usage_rows_unreadable_total") == unreadable + 1


def test_a_spool_has_an_end(api: Api, logged: Logged, spool: Spool) -> None:
    spool.max_bytes = 100
    api.get("/v2/deeds")
    spool.backlog()
    before = _metric("partner_api_usage_rows_lost_total", reason="full")
    assert api.get("/v2/deeds").status_code == 200
    assert _metric("partner_api_usage_rows_lost_total", reason="full") == before + 1
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
    odd = [b"", b"\x00\xff", b"[]", b"[1,2]", b"{", b'"text"', b"[" * 5000, line(a_row(id="no"))]
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
    assert (row.at.year, row.status, row.latency_ms, row.bytes_in) == (2200, 0, 0.0, 2**62)
    assert len(row.route) == 120


def test_a_row_that_only_postgres_refuses_holds_up_no_other(
    spool: Spool, logged: Logged, db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ingest._LENGTHS, "method", 11)
    for method in ("GET", "ELEVENCHARS", "POST"):
        spool.append(line(a_row(method=method)))
    assert {row.method for row in logged()} == {"GET", "POST"}


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
    assert _metric("partner_api_usage_rows_without_partition") == 0


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


def _metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def _count(table: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")  # noqa: S608 - a name of this file
        return int(cursor.fetchone()[0])


def _tables() -> set[str]:
    with connection.cursor() as cursor:
        return {info.name for info in connection.introspection.get_table_list(cursor)}
