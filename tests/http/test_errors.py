"""Whatever goes wrong, a client gets a problem: never HTML, never a stack trace."""

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client

from deeds import ordering
from deeds.models import Deed
from keys.models import Partner
from partner_api.ops.health import own_connection
from tests.api import Api, errors_of


def problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["request_id"] == answer["X-Request-ID"]
    assert body["type"].endswith(f"/docs/errors#{code}")
    return body


@pytest.mark.parametrize("path", ["/", "/nothing", "/v3/deeds", "/v2/deeds/", "/favicon.ico"])
def test_an_unknown_path(client: Client, path: str) -> None:
    problem(client.get(path), 404, "not_found")


@pytest.mark.parametrize("path", ["/v2/deeds/", "/v2/webhook-endpoints//", f"/v2/keys/{UUID(int=7)}/"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_slash_too_many_is_named(api: Api, path: str, method: str) -> None:
    """Who is told only that nothing is here looks for the fault in the key."""
    body = problem(api.send(method, path), 404, "not_found")
    assert body["detail"] == f"Addresses have no slash at their end here: {path.rstrip('/')}."


@pytest.mark.parametrize("path", ["/v2/nothing/", "/v2/deeds/not-an-id/", "/"])
def test_a_slash_at_the_end_of_nothing_is_not(api: Api, path: str) -> None:
    assert "slash" not in problem(api.get(path), 404, "not_found")["detail"]


@pytest.mark.parametrize("method", ["put", "patch", "delete", "options", "trace"])
def test_a_method_that_is_not_offered(api: Api, client: Client, method: str) -> None:
    answer = client.generic(method.upper(), "/v2/deeds", headers={"Authorization": f"Bearer {api.text}"})
    detail = problem(answer, 405, "method_not_allowed")["detail"]
    assert detail == f"{method.upper()} is not offered here. Offered: GET, HEAD, POST."
    assert set(answer["Allow"].split(", ")) == {"GET", "HEAD", "POST"}


def test_an_accept_header_that_no_answer_fits(api: Api) -> None:
    problem(api.get("/v2/deeds", Accept="text/html"), 406, "not_acceptable")


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml"]
)
def test_a_body_that_is_no_json_by_its_type(api: Api, client: Client, content_type: str) -> None:
    headers = {"Authorization": f"Bearer {api.text}"}
    answer = client.post("/v2/deeds", b"{}", content_type=content_type, headers=headers)
    problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("path", ["/v2/deeds", "/v2/deeds/validate", "/v1/deeds/grant"])
def test_a_body_of_10_mb(api: Api, path: str) -> None:
    problem(api.post(path, b'{"a": "' + b"x" * 10_000_000 + b'"}'), 413, "payload_too_large")


def test_a_batch_may_be_larger_than_an_order(api: Api) -> None:
    large = b'{"orders": ["' + b"x" * 2_000_000 + b'"]}'
    assert api.post("/v2/deeds/batch", large).status_code == 207
    problem(api.post("/v2/deeds/batch", large * 5), 413, "payload_too_large")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b" ", "line 1 column 2"),
        (b"{", "line 1 column 2"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": [-Infinity]}', "-Infinity is not a JSON number"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "'c' appears twice"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
        (b"[" * 100_000, "nested deeper than 24"),
        (b"[" * 30 + b"]" * 30, "nested deeper than 24"),
        (b'{"a": ' + b"9" * 5000 + b"}", "can't be read as JSON"),
        (b'{"a": 1e99999999999999999999}', "1e99999999999999999999 is beyond"),
        (b'{"a": 0e-99999999999999999999}', "is beyond"),
        (b'\xef\xbb\xbf{"a": 1}', "can't be read as JSON"),
    ],
)
def test_a_body_that_is_no_json(api: Api, body: bytes, says: str) -> None:
    assert says in problem(api.post("/v2/deeds", body), 400, "malformed_json")["detail"]


@pytest.mark.parametrize("text", ["\\ud800", "\\udc00x", "a\\u0000b"])
def test_text_that_is_not_unicode_is_named(api: Api, text: str) -> None:
    body = f'{{"property": {{"a/b~c": ["{text}"]}}}}'.encode()
    assert errors_of(api.post("/v2/deeds", body)) == {"/property/a~1b~0c/0": "invalid_characters"}


def test_a_surrogate_pair_is_one_character(api: Api, order: Any) -> None:
    body = json.dumps(order(vesting="\U0001f3e0 trust")).encode()
    assert b"\\ud83c" in body
    assert api.post("/v2/deeds", body).status_code == 202


@pytest.mark.parametrize("body", [b"[]", b"null", b'"text"', b"5"])
def test_a_body_that_is_no_object(api: Api, body: bytes) -> None:
    assert errors_of(api.post("/v2/deeds", body)) == {"": "invalid_type"}


def test_a_crash_says_nothing_of_its_cause(
    api: Api, order: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def crash(*_: Any) -> None:
        message = "the secret cause"
        raise RuntimeError(message)

    monkeypatch.setattr(ordering, "place", crash)
    answer = api.post("/v2/deeds", order())
    problem(answer, 500, "internal_error")
    assert "secret cause" not in answer.content.decode()
    assert "secret cause" in caplog.text
    assert not Deed.objects.exists()


def test_a_host_that_is_not_ours(client: Client) -> None:
    problem(client.get("/v2/deeds", headers={"Host": "evil.example"}), 400, "bad_request")


def test_the_request_id_of_a_client_is_kept(client: Client) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": "abc-1:2.3"})["X-Request-ID"] == "abc-1:2.3"


@pytest.mark.parametrize("offered", ["", "a b", "x" * 129, "a\tb", "é", "-a"])
def test_an_odd_request_id_is_replaced(client: Client, offered: str) -> None:
    answer = client.get("/healthz", headers={"X-Request-ID": offered})
    assert answer["X-Request-ID"].startswith("req_")


def test_a_foreign_session_means_nothing_to_the_api(client: Client, django_user_model: Any) -> None:
    client.force_login(django_user_model.objects.create_superuser("root", password="x"))
    problem(client.get("/v2/deeds"), 401, "authentication_required")


def test_readiness_tells_of_each_dependency(client: Client, db: None) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 200
    body = answer.json()
    assert body["status"] == "degraded"
    dependencies = body["dependencies"]
    assert set(dependencies) == {"database", "redis", "broker", "storage", "main_api"}
    assert dependencies["main_api"]["status"] == "unavailable"
    assert dependencies["main_api"]["circuit"] == "closed"
    assert dependencies["database"]["status"] == "ok"
    assert dependencies["redis"]["latency_ms"] < 1000
    assert settings.MAIN_API_BASE_URL not in answer.content.decode()


def test_health_asks_nobody(client: Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}


def test_the_documents_are_served_from_here(client: Client, acme: Partner) -> None:
    for path in ("/docs/", "/docs/redoc/"):
        page = client.get(path).content.decode()
        assert "/static/drf_spectacular_sidecar/" in page
        assert "https://" not in page.replace("https://github.com", "")


def test_an_order_that_meets_a_busy_database_is_undone_and_may_come_again(
    api: Api, order: Callable[..., dict[str, Any]], transactional_db: None
) -> None:
    # It goes back to a pool, from which another test gets it.
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '50ms'")
    try:
        with own_connection() as other:
            other.execute("LOCK TABLE external_deeds IN ACCESS EXCLUSIVE MODE")
            refused = api.post("/v2/deeds", order(), Idempotency_Key="once")
            body = problem(refused, 503, "database_unavailable")
            other.rollback()
        assert refused["Retry-After"] == "1"
        assert "external_deeds" not in json.dumps(body)
        assert Deed.objects.count() == 0
        assert api.post("/v2/deeds", order(), Idempotency_Key="once").status_code == 202
    finally:
        with connection.cursor() as cursor:
            cursor.execute("RESET lock_timeout")
