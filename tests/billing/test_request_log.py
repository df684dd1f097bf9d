"""Every request leaves one row, whatever became of it."""

import atexit
import json
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client

from billing import draining, request_log
from billing.models import ApiUsage, UsageDaily
from deeds.models import Deed
from keys.models import Partner
from partner_api.http.models import KeptAnswer
from tests.api import Api
from tests.billing.rows import metric

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


def test_an_order_is_a_deed_with_its_type_and_its_cost(
    transactional_db: None, api: Api, logged: Logged, order: Orders
) -> None:
    answer = api.post("/v2/deeds", order("tax"))
    assert answer.status_code == 202
    [row] = logged()
    assert (row.method, row.route, row.status) == ("POST", "/v2/deeds", 202)
    assert (row.deeds, row.deed_type, row.cost_units) == (1, "tax", 11)
    assert row.bytes_in == len(json.dumps(order("tax")))


def test_the_same_order_again_is_no_second_deed(
    transactional_db: None, api: Api, logged: Logged, order: Orders
) -> None:
    assert [api.post("/v2/deeds", order()).status_code for _ in range(2)] == [202, 200]
    assert [(row.deeds, row.cost_units) for row in logged()] == [(1, 11), (0, 1)]


def test_a_batch_counts_each_new_deed(
    transactional_db: None, api: Api, logged: Logged, order: Orders, settings: Any
) -> None:
    settings.USAGE_COST_UNITS = {"grant": 7, "POST /v2/deeds/batch": 3}
    bodies = [order(order_id="1"), order(order_id="2"), order("tax", order_id="3"), {"deed_type": "grant"}]
    assert api.post("/v2/deeds/batch", {"orders": bodies}).status_code == 207
    assert api.post("/v2/deeds/batch", {"orders": bodies[:2]}).status_code == 207
    mixed, again = logged()
    assert (mixed.deeds, mixed.deed_type, mixed.cost_units) == (3, "mixed", 3 + 7 + 7 + 10)
    assert (again.deeds, again.deed_type, again.cost_units) == (0, "", 3)


def test_a_first_version_order_is_a_deed(
    transactional_db: None, api: Api, logged: Logged, order: Orders, settings: Any, main_api: Any
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


def test_a_refused_key_is_logged_and_its_partner_is_not(api: Api, logged: Logged, acme: Partner) -> None:
    """Whoever tries a revoked key is nobody's client: the partner's usage has no such request."""
    own = Api.of(acme)
    own.delete(f"/v2/keys/{api.key.pk}")
    assert api.get("/v2/deeds").status_code == 401
    *_, row = logged()
    assert (row.status, row.error_code, row.cost_units) == (401, "api_key_revoked", 0)
    assert (row.partner_id, row.key_id, row.livemode) == (None, api.key.pk, None)
    usage = own.get("/v2/usage?group_by=key").json()
    assert (usage["totals"]["requests"], usage["totals"]["errors"]) == (1, 0)
    assert {line["key_prefix"] for line in usage["data"]} == {own.key.prefix}


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


def test_what_a_client_claims_to_send_overflows_no_sum(
    api: Api, client: Client, logged: Logged, acme: Partner
) -> None:
    headers = {"Authorization": f"Bearer {api.text}", "Content-Length": str(2**63 - 1)}
    for _ in range(3):
        client.get("/v2/deeds", headers=headers)
        logged()
    assert UsageDaily.objects.get(level=7).bytes_in == 3 * 2**32
    assert api.get("/v2/usage").json()["totals"]["requests"] == 3


def test_methods_that_clients_invent_are_one(client: Client, db: None, logged: Logged) -> None:
    for number in range(3):
        client.generic(f"BREW{number}", "/v2/deeds")
    assert {row.method for row in logged()} == {"other"}
    assert UsageDaily.objects.filter(level=0).count() == 1


def test_an_answer_goes_out_whatever_becomes_of_its_row(
    transactional_db: None, api: Api, order: Orders, logged: Logged, settings: Any
) -> None:
    settings.USAGE_COST_UNITS = {"grant": "12"}
    before = metric("partner_api_usage_rows_lost_total", reason="error")
    assert api.post("/v2/deeds", order()).status_code == 202
    assert Deed.objects.count() == 1
    assert metric("partner_api_usage_rows_lost_total", reason="error") == before + 1
    settings.USAGE_COST_UNITS = {}
    api.get("/v2/deeds")
    assert len(logged()) == 1


def test_a_drainer_without_a_thread_tries_again_with_the_next_request(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def start(thread: threading.Thread) -> None:
        begun.append(thread.name)
        if len(begun) == 1:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(atexit, "register", lambda _: None)
    drainer = draining.Drainer(seconds=60)
    for _ in range(3):
        drainer.ensure_running()
    assert begun == ["usage-drain"] * 2


def test_a_test_key_is_logged_as_such(acme: Partner, logged: Logged) -> None:
    Api.of(acme, environment="test").get("/v2/deeds")
    assert [row.livemode for row in logged()] == [False]


def test_a_file_is_logged_with_its_length(
    api: Api, logged: Logged, order: Orders, main_api: Any, client: Client
) -> None:
    from deeds import tasks

    deed_id = api.post("/v2/deeds", order()).json()["id"]
    tasks.serve(deed_id)
    url = api.get(f"/v2/deeds/{deed_id}").json()["pdf"]["url"].removeprefix("http://testserver")
    answer: Any = client.get(url)
    content = answer.content
    row = logged()[-1]
    assert (row.route, row.status) == ("/files/deeds/{deed_id}.pdf", 200)
    assert row.bytes_out == len(content) > 1000


def test_an_order_that_was_undone_is_no_deed(
    transactional_db: None, api: Api, logged: Logged, order: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaves(self: KeptAnswer) -> None:
        raise OperationalError

    monkeypatch.setattr(KeptAnswer, "store", leaves)
    assert api.post("/v2/deeds", order(), Idempotency_Key="one").status_code == 503
    [row] = logged()
    assert (row.status, row.deeds, Deed.objects.count()) == (503, 0, 0)
