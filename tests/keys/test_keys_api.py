"""/v2/keys: a partner's administrators manage their own keys, and no more."""

import datetime as dt
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from keys.models import ApiKey, AuditEntry, Partner
from keys.scopes import GRANTABLE, SCOPES
from tests.api import Api, errors_of

LATER = "2030-01-01T00:00:00Z"


@pytest.fixture
def admin(acme: Partner) -> Api:
    return Api.of(acme, scopes=["key:manage", "deed:read"])


def test_it_works(admin: Api) -> None:
    answer = admin.post("/v2/keys", {"name": "Branch", "scopes": ["deed:read"]})
    assert answer.status_code == 201
    assert answer["Cache-Control"] == "no-store"
    body = answer.json()
    assert Api(admin.partner, admin.key, body["api_key"]).get("/v2/deeds").status_code == 200
    listed = admin.get("/v2/keys").json()["data"]
    assert [key["name"] for key in listed] == ["Branch", "Test"]
    assert body["api_key"] not in str(listed)
    assert not any("secret" in name for name in listed[0])
    assert admin.get(f"/v2/keys/{body['id']}").json() == listed[0]
    entry = AuditEntry.objects.get()
    assert (entry.actor_kind, entry.actor, entry.action) == ("key", admin.key.prefix, "key.issued")


def test_a_key_is_changed(admin: Api) -> None:
    made = admin.post("/v2/keys", {"name": "Branch", "scopes": ["deed:read"]}).json()
    change = {"name": "Pasadena", "scopes": [], "allowed_cidrs": ["203.0.113.0/24"], "expires_at": LATER}
    answer = admin.patch(f"/v2/keys/{made['id']}", change)
    assert answer.status_code == 200
    shown = answer.json()
    assert (shown["name"], shown["scopes"], shown["allowed_cidrs"]) == ("Pasadena", [], ["203.0.113.0/24"])
    assert shown["expires_at"] == LATER


def test_an_expiry_may_have_an_offset_that_the_database_does_not_know(admin: Api) -> None:
    made = admin.post("/v2/keys", {"name": "Branch", "expires_at": "2030-01-01T00:00:00+23:00"})
    assert (made.status_code, made.json()["expires_at"]) == (201, "2029-12-31T01:00:00Z")


def test_a_key_is_rotated(admin: Api) -> None:
    made = admin.post("/v2/keys", {"name": "Branch", "scopes": ["deed:read"]}).json()
    answer = admin.post(f"/v2/keys/{made['id']}/rotate", {"overlap_seconds": 60})
    assert answer.status_code == 201
    for text in (made["api_key"], answer.json()["api_key"]):
        assert Api(admin.partner, admin.key, text).get("/v2/deeds").status_code == 200
    old = admin.get(f"/v2/keys/{made['id']}").json()
    assert (old["state"], old["replaced_by"]) == ("rotated", answer.json()["id"])
    again = admin.post(f"/v2/keys/{made['id']}/rotate", {})
    assert (again.status_code, again.json()["code"]) == (409, "key_not_rotatable")
    assert answer.json()["prefix"] in again.json()["detail"]


def test_a_key_is_issued_once_however_often_it_is_asked_for(admin: Api) -> None:
    first, second = (admin.post("/v2/keys", {"name": "Branch"}, Idempotency_Key="branch-1") for _ in range(2))
    assert second["Idempotent-Replayed"] == "true"
    assert first.json() == second.json()
    assert ApiKey.objects.count() == 2


def test_a_key_can_rotate_itself(admin: Api) -> None:
    answer = admin.post(f"/v2/keys/{admin.key.pk}/rotate", {})
    assert answer.status_code == 201
    assert "Deprecation" in admin.get("/v2/keys")


def test_a_key_is_revoked(admin: Api) -> None:
    made = admin.post("/v2/keys", {"name": "Branch", "scopes": ["deed:read"]}).json()
    assert admin.delete(f"/v2/keys/{made['id']}").status_code == 204
    assert admin.delete(f"/v2/keys/{made['id']}").status_code == 204
    used = Api(admin.partner, admin.key, made["api_key"]).get("/v2/deeds")
    assert used.json()["code"] == "api_key_revoked"
    assert AuditEntry.objects.filter(action="key.revoked").count() == 1


def test_a_key_is_revoked_with_a_reason_and_the_first_one_stays(admin: Api) -> None:
    made = admin.post("/v2/keys", {"name": "Branch"}).json()
    for reason in ("left+on+a+train+%F0%9F%9A%86", "again"):
        assert admin.delete(f"/v2/keys/{made['id']}?reason={reason}").status_code == 204
    entry = AuditEntry.objects.get(action="key.revoked")
    assert (entry.actor, entry.reason) == (admin.key.prefix, "left on a train 🚆")
    assert admin.get(f"/v2/keys/{made['id']}").json()["revoked_reason"] == "left on a train 🚆"


def test_without_a_reason_it_says_who_revoked_it(admin: Api) -> None:
    made = admin.post("/v2/keys", {"name": "Branch"}).json()
    admin.delete(f"/v2/keys/{made['id']}")
    assert admin.key.prefix in AuditEntry.objects.get(action="key.revoked").reason


@pytest.mark.parametrize(
    ("query", "errors"),
    [
        ("reason=", {"/reason": "invalid_value"}),
        ("reason=+", {"/reason": "invalid_value"}),
        ("reason=" + "x" * 201, {"/reason": "invalid_value"}),
        ("reason=a%00b", {"/reason": "invalid_characters"}),
        ("reason=a%0Ab", {"/reason": "invalid_characters"}),
        ("reason=a&reason=b", {"/reason": "repeated"}),
        ("reasn=lost", {"/reasn": "unknown_parameter"}),
    ],
)
def test_a_wrong_reason_revokes_nothing(admin: Api, query: str, errors: dict[str, str]) -> None:
    made = admin.post("/v2/keys", {"name": "Branch"}).json()
    assert errors_of(admin.delete(f"/v2/keys/{made['id']}?{query}")) == errors
    assert admin.get(f"/v2/keys/{made['id']}").json()["state"] == "active"


@pytest.mark.parametrize("scopes", [["deed:create"], ["deed:*"], ["*"], ["deed:read", "usage:read"]])
def test_a_key_can_not_grant_scopes_that_it_has_not(admin: Api, scopes: list[str]) -> None:
    answer = admin.post("/v2/keys", {"name": "More", "scopes": scopes})
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
    assert answer.json()["required_scope"] in scopes
    assert ApiKey.objects.count() == 1


def test_a_key_with_a_wildcard_grants_what_that_covers(acme: Partner) -> None:
    admin = Api.of(acme, scopes=["key:manage", "deed:*"])
    wanted = ["deed:create", "deed:read"]
    assert admin.post("/v2/keys", {"name": "Orders", "scopes": wanted}).status_code == 201
    refused = admin.post("/v2/keys", {"name": "More", "scopes": ["deed:read", "usage:read"]})
    assert (refused.status_code, refused.json()["required_scope"]) == (403, "usage:read")


def test_nor_rotate_or_widen_a_key_that_has_more(admin: Api, acme: Partner) -> None:
    wide = Api.of(acme, scopes=list(SCOPES))
    assert admin.post(f"/v2/keys/{wide.key.pk}/rotate", {}).json()["code"] == "insufficient_scope"
    assert admin.patch(f"/v2/keys/{admin.key.pk}", {"scopes": ["*"]}).status_code == 403
    assert ApiKey.objects.count() == 2
    # Taking one back is never too much.
    assert admin.delete(f"/v2/keys/{wide.key.pk}").status_code == 204


def test_nor_reach_further_live_longer_or_call_faster(acme: Partner) -> None:
    bounds = {
        "allowed_cidrs": ["127.0.0.0/8"],
        "expires_at": timezone.now() + dt.timedelta(days=1),
        "rate_limit_per_minute": 100,
        "rate_limit_burst": 10,
    }
    key, text = ApiKey.issue(acme, name="x", environment="live", scopes=["key:manage"], **bounds)
    admin = Api(acme, key, text)
    asked = {
        "name": "More",
        "allowed_cidrs": ["0.0.0.0/0"],
        "expires_at": LATER,
        "rate_limit_per_minute": 101,
        "rate_limit_burst": 11,
    }
    names = ("allowed_cidrs", "expires_at", "rate_limit_per_minute", "rate_limit_burst")
    assert errors_of(admin.post("/v2/keys", asked)) == {f"/{name}": "more_than_own" for name in names}
    assert errors_of(admin.patch(f"/v2/keys/{key.pk}", {"expires_at": None})) == {
        "/expires_at": "more_than_own"
    }
    same = admin.post("/v2/keys", {"name": "Same"}).json()
    assert (same["allowed_cidrs"], same["rate_limit_per_minute"]) == (["127.0.0.0/8"], 100)


def test_a_key_that_was_rotated_leaves_nothing_behind_that_outlives_it(acme: Partner) -> None:
    """It was rotated because somebody else may have it: nor can it take its successor's place."""
    admin = Api.of(acme, scopes=["key:manage"])
    new = admin.post(f"/v2/keys/{admin.key.pk}/rotate", {"overlap_seconds": 3600}).json()
    ends = ApiKey.objects.get(pk=admin.key.pk).expires_at
    issued = admin.post("/v2/keys", {"name": "Foothold"}).json()
    assert dt.datetime.fromisoformat(issued["expires_at"]) == ends
    for answer in (
        admin.post("/v2/keys", {"name": "Foothold", "expires_at": LATER}),
        admin.patch(f"/v2/keys/{issued['id']}", {"expires_at": None}),
        admin.post(f"/v2/keys/{new['id']}/rotate", {}),
    ):
        assert errors_of(answer) == {"/expires_at": "more_than_own"}
    assert ApiKey.objects.get(pk=new["id"]).replaced_by is None
    successor = Api(acme, ApiKey.objects.get(pk=new["id"]), new["api_key"])
    assert successor.post("/v2/keys", {"name": "Branch"}).json()["expires_at"] is None
    # Taking one back is never too much.
    assert admin.delete(f"/v2/keys/{issued['id']}").status_code == 204


def test_a_revoked_key_is_not_changed_any_more(admin: Api) -> None:
    """An answer of 200 to another expiry would say that it works again."""
    made = admin.post("/v2/keys", {"name": "Branch"}).json()
    admin.delete(f"/v2/keys/{made['id']}")
    for change in ({"expires_at": LATER}, {"name": "Renamed"}):
        answer = admin.patch(f"/v2/keys/{made['id']}", change)
        assert errors_of(answer) == {"": "invalid_value"}
        assert "was revoked" in answer.json()["detail"]
    with pytest.raises(CommandError, match="was revoked"):
        call_command("change_key", made["prefix"], "--name", "Renamed")
    assert [entry.action for entry in AuditEntry.objects.order_by("id")] == ["key.issued", "key.revoked"]


def _networks(count: int) -> list[str]:
    return [f"10.{number >> 8}.{number & 255}.0/24" for number in range(count)]


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_lists_that_each_request_would_pay_for_have_a_bound(acme: Partner, method: str) -> None:
    admin = Api.of(acme, scopes=["*"])
    path = "/v2/keys" if method == "POST" else f"/v2/keys/{admin.key.pk}"
    errors = {"/allowed_cidrs": "invalid_value", "/scopes": "invalid_value"}
    too_many = {"name": "x", "allowed_cidrs": _networks(101), "scopes": ["deed:read"] * (len(GRANTABLE) + 1)}
    assert errors_of(admin.send(method, path, too_many)) == errors
    most = {"name": "x", "allowed_cidrs": [*_networks(99), "127.0.0.0/8"], "scopes": list(GRANTABLE)}
    assert admin.send(method, path, most).status_code in {200, 201}


def test_an_unknown_parameter_of_the_list_is_named(admin: Api) -> None:
    assert errors_of(admin.get("/v2/keys?stat=active")) == {"/stat": "unknown_parameter"}


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_keys_of_others_and_of_the_other_mode_look_absent(
    admin: Api, stranger: Api, acme: Partner, method: str
) -> None:
    test_key = Api.of(acme, environment="test")
    absent = admin.send(method, "/v2/keys/01900000-0000-7000-8000-000000000000", {}).json()
    for key in (stranger.key, test_key.key):
        answer = admin.send(method, f"/v2/keys/{key.pk}", {})
        assert answer.status_code == 404
        assert {**answer.json(), "request_id": ""} == {**absent, "request_id": ""}
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ([], {"": "invalid_type"}),
        ({}, {"/name": "required"}),
        ({"name": ""}, {"/name": "invalid_value"}),
        ({"name": "\x1b[31mred"}, {"/name": "invalid_characters"}),
        ({"name": "gnp.\u202eexe"}, {"/name": "invalid_characters"}),
        ({"name": "x", "scope": []}, {"/scope": "unknown_field"}),
        ({"name": "x", "scopes": ["deed:reed"]}, {"/scopes/0": "unknown_scope"}),
        ({"name": "x", "scopes": "deed:read"}, {"/scopes": "invalid_value"}),
        ({"name": "x", "rate_limit_burst": 0}, {"/rate_limit_burst": "invalid_value"}),
        ({"name": "x", "rate_limit_burst": "5"}, {"/rate_limit_burst": "invalid_value"}),
        ({"name": "x", "expires_at": "2030-01-01"}, {"/expires_at": "invalid_value"}),
        ({"name": "x", "allowed_cidrs": ["office"]}, {"/allowed_cidrs": "invalid_value"}),
        ({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}, {"/expires_at": "invalid_value"}),
        (
            {"name": "x", "not_before": LATER, "expires_at": "2029-01-01T00:00:00Z"},
            {"/expires_at": "invalid_value"},
        ),
    ],
)
def test_a_wrong_body_is_named(admin: Api, body: Any, expected: dict[str, str]) -> None:
    assert errors_of(admin.post("/v2/keys", body)) == expected
    assert ApiKey.objects.count() == 1


@pytest.mark.parametrize("seconds", [-1, 604_801, "60", 1.5])
def test_a_wrong_overlap_is_named(admin: Api, seconds: Any) -> None:
    answer = admin.post(f"/v2/keys/{admin.key.pk}/rotate", {"overlap_seconds": seconds})
    assert errors_of(answer) == {"/overlap_seconds": "invalid_value"}
    assert ApiKey.objects.count() == 1
