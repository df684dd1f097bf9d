"""The back office issues, changes, rotates and revokes keys."""

import datetime as dt
from typing import Any

import pytest

from keys.models import ApiKey, AuditEntry, Partner
from tests.api import Api, errors_of
from tests.keys.back_office import send

pytestmark = pytest.mark.usefixtures("shared_secret")


NOBODY = "01900000-0000-7000-8000-000000000000"


def test_a_key_is_issued_changed_rotated_and_revoked(acme: Partner) -> None:
    ends = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    sent = {
        "partner": str(acme.pk),
        "name": "SoftPro",
        "environment": "live",
        "scopes": ["deed:read"],
        "rate_limit_per_minute": 60,
        "rate_limit_burst": 10,
        "allowed_cidrs": ["127.0.0.0/8"],
        "expires_at": "2030-01-01T00:00:00Z",
    }
    made = send("POST", "/keys", sent)
    assert made.status_code == 201
    assert "no-store" in made["Cache-Control"]
    body = made.json()
    assert {name: body[name] for name in sent} == sent
    text = body.pop("api_key")
    key = ApiKey.objects.get()
    assert key.expires_at == ends
    assert Api(acme, key, text).get("/v2/deeds").status_code == 200

    path = f"/keys/{key.pk}"
    assert send("GET", path).json() == body | {
        name: send("GET", path).json()[name] for name in ("last_used_at", "last_used_address")
    }
    changed = send("PATCH", path, {"scopes": ["deed:create"], "expires_at": None})
    assert (changed.json()["scopes"], changed.json()["expires_at"]) == (["deed:create"], None)
    assert changed.json()["rate_limit_per_minute"] == 60
    assert Api(acme, key, text).get("/v2/deeds").json()["code"] == "insufficient_scope"

    rotated = send("POST", f"{path}/rotate", {"overlap_seconds": 3600})
    assert rotated.status_code == 201
    assert "no-store" in rotated["Cache-Control"]
    new = rotated.json()
    assert new["replaces"]["id"] == str(key.pk)
    assert new["replaces"]["replaced_by"] == new["id"]
    again = send("POST", f"{path}/rotate", {})
    assert (again.status_code, again.json()["code"]) == (409, "key_not_rotatable")
    assert send("GET", path).json()["state"] == "rotated"

    assert errors_of(send("POST", f"/keys/{new['id']}/revoke", {})) == {"/reason": "required"}
    revoked = send("POST", f"/keys/{new['id']}/revoke", {"reason": "leaked"})
    assert (revoked.status_code, revoked.json()["revoked_reason"]) == (200, "leaked")
    assert send("POST", f"/keys/{new['id']}/revoke", {"reason": "again"}).json()["revoked_reason"] == "leaked"

    actions = [entry.action for entry in AuditEntry.objects.order_by("id")]
    assert actions == ["key.issued", "key.changed", "key.rotated", "key.revoked"]
    elsewhere = send("GET", "/keys").content + send("GET", "/audit").content + send("GET", path).content
    for secret in (text, new["api_key"]):
        assert secret.rpartition("_")[2].encode() not in elsewhere
        assert secret.rpartition("_")[2] not in repr(list(AuditEntry.objects.values()))


def test_a_key_has_no_scope_unless_given(acme: Partner) -> None:
    body = {"partner": str(acme.pk), "name": "Bare", "environment": "test"}
    assert send("POST", "/keys", body).json()["scopes"] == []


@pytest.mark.parametrize(
    ("changes", "errors"),
    [
        ({"partner": NOBODY}, {"/partner": "unknown_partner"}),
        ({"partner": "acme"}, {"/partner": "invalid_value"}),
        ({"environment": "prod"}, {"/environment": "invalid_value"}),
        ({"scopes": ["deed:raed"]}, {"/scopes": "invalid_value"}),
        ({"scopes": "deed:read"}, {"/scopes": "invalid_value"}),
        ({"scopes": ["deed:read"] * 20}, {"/scopes": "invalid_value"}),
        ({"allowed_cidrs": ["10.0.0.1/8"]}, {"/allowed_cidrs": "invalid_value"}),
        ({"rate_limit_per_minute": 0}, {"/rate_limit_per_minute": "invalid_value"}),
        ({"rate_limit_burst": 1.5}, {"/rate_limit_burst": "invalid_value"}),
        ({"expires_at": "tomorrow"}, {"/expires_at": "invalid_value"}),
        ({"expires_at": "2030-01-01T00:00:00"}, {"/expires_at": "invalid_value"}),
        ({"secret_sha256": "0"}, {"/secret_sha256": "unknown_field"}),
    ],
)
def test_a_wrong_key_is_refused_by_field(
    acme: Partner, changes: dict[str, Any], errors: dict[str, str]
) -> None:
    body = {"partner": str(acme.pk), "name": "x", "environment": "live", **changes}
    assert errors_of(send("POST", "/keys", body)) == errors
    assert not ApiKey.objects.exists()


def test_a_reason_that_is_too_long_is_told_its_length_in_characters(api: Api) -> None:
    answer = send("POST", f"/keys/{api.key.pk}/revoke", {"reason": "x" * 201})
    assert "200 characters at the most" in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/keys/{key}", {"environment": "test"}),
        ("PATCH", "/keys/{key}", {"partner": NOBODY}),
        ("POST", "/keys/{key}/rotate", {"overlap_seconds": 604_801}),
        ("POST", "/keys/{key}/rotate", {"overlap_seconds": -1}),
        ("POST", "/keys/{key}/rotate", {"overlap_seconds": "60"}),
        ("POST", "/keys/{key}/rotate", {"reason": "\x1b[2J"}),
        ("POST", "/keys/{key}/revoke", {"reason": " "}),
    ],
)
def test_a_wrong_act_changes_nothing(api: Api, method: str, path: str, body: Any) -> None:
    before = list(ApiKey.objects.values())
    assert send(method, path.format(key=api.key.pk), body).status_code == 422
    assert list(ApiKey.objects.values()) == before
    assert not AuditEntry.objects.exists()
