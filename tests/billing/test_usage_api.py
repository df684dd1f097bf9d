"""GET /v2/usage, and the same for staff."""

import datetime as dt
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
import time_machine
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from billing import draining, usage
from billing.models import ApiUsage
from keys.models import ApiKey, Partner
from tests.api import Api, errors_of
from tests.billing.rows import log, requests

SECRET = "a shared secret of more than thirty-two bytes"


@pytest.fixture(autouse=True)
def shared_secret(settings: Any) -> None:
    settings.ADMIN_JWT_SECRET = SECRET
    settings.ADMIN_JWT_AUDIENCE, settings.ADMIN_JWT_ISSUER = "partner-api-admin", "main-api"


def _usage(api: Api, query: str = "") -> Any:
    answer = api.get(f"/v2/usage{query}")
    assert answer.status_code == 200, answer.content
    return answer.json()


def test_it_works(api: Api) -> None:
    api.get("/v2/deeds")
    api.get("/v2/deeds?nonsense=1")
    draining.drain()
    answer = _usage(api)
    [point] = answer["data"]
    today = dt.datetime.now(dt.UTC).date()
    assert point["period"] == f"{today}T00:00:00Z"
    assert (point["requests"], point["errors"], point["deeds"], point["cost_units"]) == (2, 1, 0, 2)
    assert 0 < point["latency_ms"]["p50"] <= point["latency_ms"]["p99"]
    assert answer["totals"] == {name: value for name, value in point.items() if name != "period"}
    assert (answer["interval"], answer["group_by"]) == ("day", None)
    # The question itself is usage, too.
    draining.drain()
    assert _usage(api)["totals"]["requests"] == 3


def test_without_usage_there_is_nothing_and_no_latency(api: Api) -> None:
    answer = _usage(api)
    assert answer["data"] == []
    assert answer["totals"]["requests"] == 0
    assert answer["totals"]["latency_ms"] == {"p50": None, "p95": None, "p99": None}


def test_another_partners_usage_never_appears(api: Api, stranger: Api) -> None:
    log(
        requests(5, partner=stranger.partner, key=stranger.key), requests(2, partner=api.partner, key=api.key)
    )
    log(requests(4))  # without a key
    for group in ("", "key", "route", "status", "deed_type"):
        for interval in ("day", "hour"):
            query = f"?interval={interval}" + (f"&group_by={group}" if group else "")
            answer = _usage(api, query)
            assert answer["totals"]["requests"] == 2, query
            assert str(stranger.key.pk) not in str(answer)
    assert _usage(stranger)["totals"]["requests"] == 5


def test_a_key_sees_its_own_mode(api: Api) -> None:
    test = Api.of(api.partner, environment="test")
    log(requests(3, partner=api.partner, key=test.key), requests(2, partner=api.partner, key=api.key))
    assert _usage(test)["totals"]["requests"] == 3
    assert _usage(api)["totals"]["requests"] == 2


def test_groups(api: Api) -> None:
    other = Api.of(api.partner)
    log(
        requests(3, partner=api.partner, key=api.key, status=422, method="POST"),
        requests(2, partner=api.partner, key=other.key, method="POST", status=202, deeds=1, deed_type="tax"),
    )
    by_key = {point["key"]: point for point in _usage(api, "?group_by=key")["data"]}
    assert {key: point["requests"] for key, point in by_key.items()} == {
        str(api.key.pk): 3,
        str(other.key.pk): 2,
    }
    assert by_key[str(api.key.pk)]["key_prefix"] == api.key.prefix
    by_status = _usage(api, "?group_by=status")["data"]
    assert [(point["status"], point["requests"], point["errors"]) for point in by_status] == [
        (202, 2, 0),
        (422, 3, 3),
    ]
    [by_route] = _usage(api, "?group_by=route")["data"]
    assert (by_route["route"], by_route["requests"]) == ("POST /v2/deeds", 5)
    by_type = _usage(api, "?group_by=deed_type")["data"]
    assert [(point["deed_type"], point["deeds"]) for point in by_type] == [(None, 0), ("tax", 2)]


def test_hours_and_days_say_the_same(api: Api) -> None:
    at = dt.datetime(2026, 11, 20, 22, 30, tzinfo=dt.UTC)
    own = {"partner": api.partner, "key": api.key}
    log(*(requests(1, at=at + dt.timedelta(hours=hours), **own) for hours in range(0, 50, 3)))
    span = "from=2026-11-20T21:00:00Z&to=2026-11-23T05:00:00Z"
    hours, days = _usage(api, f"?{span}&interval=hour"), _usage(api, f"?{span}")
    assert hours["totals"] == days["totals"]
    assert len(hours["data"]) == days["totals"]["requests"] == 17
    assert [(point["period"][:10], point["requests"]) for point in days["data"]] == [
        ("2026-11-20", 1),
        ("2026-11-21", 8),
        ("2026-11-22", 8),
    ]


@pytest.mark.parametrize(
    ("span", "count"),
    [
        ("from=2026-11-20T10:00:00Z&to=2026-11-20T11:00:00Z", 1),
        ("from=2026-11-20T10:59:00Z&to=2026-11-20T10:59:30Z", 1),
        ("from=2026-11-20T11:00:00Z&to=2026-11-20T12:00:00Z", 0),
        ("from=2026-11-20T09:00:00Z&to=2026-11-20T10:00:00Z", 0),
        ("from=2026-11-20&to=2026-11-21", 1),
        ("from=2026-11-19&to=2026-11-20", 0),
        ("from=2026-11-20T12:00:00%2B02:00&to=2026-11-20T13:00:00%2B02:00", 1),
        ("from=2026-11-20T12:00:00+02:00&to=2026-11-20T13:00:00+02:00", 1),
    ],
)
def test_the_range_is_in_whole_hours(api: Api, span: str, count: int) -> None:
    at = dt.datetime(2026, 11, 20, 10, 20, tzinfo=dt.UTC)
    log(requests(1, at=at, partner=api.partner, key=api.key))
    for interval in ("hour", "day"):
        assert _usage(api, f"?{span}&interval={interval}")["totals"]["requests"] == count


def test_the_answer_says_what_it_covers(api: Api) -> None:
    with time_machine.travel(dt.datetime(2026, 11, 24, 10, 20, tzinfo=dt.UTC), tick=False):
        answer = _usage(api)
        hours = _usage(api, "?interval=hour")
    assert (answer["from"], answer["to"]) == ("2026-10-25T10:00:00Z", "2026-11-24T11:00:00Z")
    assert (hours["from"], hours["to"]) == ("2026-11-22T10:00:00Z", "2026-11-24T11:00:00Z")


@pytest.mark.parametrize(
    ("query", "pointer", "code", "hint"),
    [
        ("?grup_by=key", "/grup_by", "unknown_parameter", "group_by"),
        ("?partner=x", "/partner", "unknown_parameter", "known here"),
        ("?group_by=partner", "/group_by", "invalid_value", "deed_type"),
        ("?interval=minute", "/interval", "invalid_value", "hour"),
        ("?interval=day&interval=hour", "/interval", "repeated", "once"),
        ("?from=yesterday", "/from", "invalid_value", "RFC 3339"),
        ("?from=2026-11-20T10:00:00", "/from", "invalid_value", "zone"),
        ("?from=0001-01-01T00:00:00%2B10:00", "/from", "invalid_value", "RFC 3339"),
        ("?to=9999-12-31", "/to", "invalid_value", "RFC 3339"),
        ("?from=2026-11-21&to=2026-11-20", "/from", "invalid_value", "before"),
        ("?from=2026-11-20&to=2026-11-20", "/from", "invalid_value", "before"),
        ("?from=2020-01-01&to=2026-11-20", "/from", "invalid_value", "400 days"),
        ("?from=2026-01-01&to=2026-11-20&interval=hour", "/from", "invalid_value", "31 days"),
        ("?from=2026-10-20&to=2026-11-20T00:00:01Z&interval=hour", "/from", "invalid_value", "31 days"),
    ],
)
def test_a_wrong_question_is_told_what_is_wrong(
    api: Api, query: str, pointer: str, code: str, hint: str
) -> None:
    answer = api.get(f"/v2/usage{query}")
    assert errors_of(answer) == {pointer: code}
    assert hint in answer.json()["errors"][0]["message"]
    assert answer.json()["errors"][0]["in"] == "query"


def test_the_longest_range_may_begin_within_an_hour(api: Api) -> None:
    _usage(api, "?from=2026-10-20T10:30:00Z&to=2026-11-20T10:30:00Z&interval=hour")
    _usage(api, "?from=2025-10-16&to=2026-11-20")


def test_a_path_that_no_route_fits_has_its_method_for_a_route(api: Api) -> None:
    log(requests(1, route="", status=404, partner=api.partner, key=api.key))
    assert [point["route"] for point in _usage(api, "?group_by=route")["data"]] == ["GET"]


def test_an_answer_too_long_to_be_of_use_is_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from billing import usage_query, usage_views

    for module in (usage_query, usage_views):
        monkeypatch.setattr(module, "MAX_POINTS", 2)
    day = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)
    own = {"partner": api.partner, "key": api.key}
    log(*(requests(1, at=day + dt.timedelta(hours=hour), **own) for hour in range(3)))
    span = "from=2026-11-20&to=2026-11-21"
    assert errors_of(api.get(f"/v2/usage?{span}&interval=hour")) == {"/interval": "invalid_value"}
    assert _usage(api, f"?{span}")["totals"]["requests"] == 3


def test_it_needs_its_scope(acme: Partner) -> None:
    assert Api.of(acme, scopes=["deed:*"]).get("/v2/usage").status_code == 403
    assert Api.of(acme, scopes=["usage:read"]).get("/v2/usage").status_code == 200


def test_the_log_itself_is_not_read(api: Api) -> None:
    """However many rows it has: the plans of all questions touch the rollups only."""
    log(requests(2, partner=api.partner, key=api.key))
    now = dt.datetime.now(dt.UTC)
    span = usage.Range.around(now - 20 * usage.DAY, now)
    groups: list[Any] = [None, "key", "route", "status", "deed_type", "partner"]
    for partner in (api.partner.pk, None):
        for group in groups:
            question = usage.Question(span, "day", group, partner=partner)
            sql, parameters = usage._query(question)
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN {sql}", parameters)
                plan = "\n".join(line for (line,) in cursor.fetchall())
            assert "usage_daily" in plan
            assert "api_usage" not in plan


def test_the_number_of_queries_does_not_follow_the_groups(api: Api, nothing_is_due: None) -> None:
    for _ in range(6):
        log(requests(1, partner=api.partner, key=Api.of(api.partner).key))
    api.get("/v2/usage")  # the key is known from here on
    with CaptureQueriesContext(connection) as queries:
        assert len(_usage(api, "?group_by=key")["data"]) == 6
    assert len(queries) <= 4


def test_staff_see_all_partners(api: Api, stranger: Api) -> None:
    log(
        requests(5, partner=stranger.partner, key=stranger.key),
        requests(2, partner=api.partner, key=api.key),
        requests(4, status=401),
    )
    assert _staff()["totals"]["requests"] == 11
    assert _staff("?livemode=true")["totals"]["requests"] == 7
    assert _staff(f"?partner={stranger.partner.pk}")["totals"]["requests"] == 5
    assert _staff(f"?partner={uuid4()}")["data"] == []
    by_partner = _staff("?group_by=partner")["data"]
    assert {(point["partner_name"], point["requests"]) for point in by_partner} == {
        ("Acme Title", 2),
        ("Pacific Escrow", 5),
        (None, 4),
    }
    by_status = _staff("?group_by=status")["data"]
    assert {(point["status"], point["requests"]) for point in by_status} == {(200, 7), (401, 4)}
    assert errors_of(_asked("?partner=me")) == {"/partner": "invalid_value"}
    assert api.get("/admin-api/v1/usage").status_code == 401, "a partner's key is no admin token"


def _staff(query: str = "") -> Any:
    answer = _asked(query)
    assert answer.status_code == 200, answer.content
    return answer.json()


def _asked(query: str) -> Any:
    claims = {"sub": "maria", "role": "support", "aud": "partner-api-admin", "iss": "main-api"}
    expires = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1)
    token = jwt.encode({**claims, "iat": dt.datetime.now(dt.UTC), "exp": expires}, SECRET, algorithm="HS256")
    return Client().get(f"/admin-api/v1/usage{query}", headers={"Authorization": f"Bearer {token}"})


def test_a_key_that_is_no_more_still_has_its_usage(api: Api) -> None:
    gone = ApiKey(id=UUID(int=5), partner=api.partner, environment="live")
    log(requests(1, partner=api.partner, key=gone))
    [point] = _usage(api, "?group_by=key")["data"]
    assert (point["key"], point["key_prefix"]) == (str(gone.pk), None)
    assert ApiUsage.objects.filter(key_id=gone.pk).count() == 1
