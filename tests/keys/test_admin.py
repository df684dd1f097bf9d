"""Staff and keys: issued once to see, revoked with a reason."""

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.test import Client

from keys.models import ApiKey, Partner
from keys.secret import PATTERN, KeyText
from tests.api import Api


def _issue(staff: Client, partner: Partner, **changes: Any) -> Any:
    form = {
        "partner": str(partner.pk),
        "name": "SoftPro",
        "environment": "live",
        "scopes": ["deed:create", "deed:read"],
        "rate_limit_per_minute": "120",
        "rate_limit_burst": "30",
        "expires_at_0": "",
        "expires_at_1": "",
    }
    return staff.post("/admin/keys/apikey/add/", form | changes)


def test_a_key_is_issued_and_shown_once(staff: Client, acme: Partner) -> None:
    answer = _issue(staff, acme)
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    page = answer.content.decode()
    found = PATTERN.search(page)
    assert found is not None
    text = KeyText.parse(found[0])
    key = ApiKey.objects.get()
    assert text is not None
    assert key.matches(text)
    assert key.scopes == ["deed:create", "deed:read"]
    assert Api(acme, key, found[0]).get("/v2/deeds").status_code == 200
    elsewhere = "".join(
        staff.get(path).content.decode()
        for path in (
            f"/admin/keys/apikey/{key.pk}/change/",
            f"/admin/keys/apikey/{key.pk}/history/",
            "/admin/keys/apikey/",
            "/admin/",
        )
    )
    kept = repr([*LogEntry.objects.values(), *(s.get_decoded() for s in Session.objects.all())])
    assert key.key_id in elsewhere
    assert text.secret not in elsewhere
    assert text.secret not in kept
    assert LogEntry.objects.count() == 1


def test_a_form_with_an_error_issues_nothing(staff: Client, acme: Partner) -> None:
    answer = _issue(staff, acme, name="")
    assert answer.status_code == 200
    assert PATTERN.search(answer.content.decode()) is None
    assert not ApiKey.objects.exists()


def test_a_key_is_revoked_with_a_reason(staff: Client, api: Api) -> None:
    url = f"/admin/keys/apikey/{api.key.pk}/revoke/"
    assert "Revoke this key" in staff.get(url).content.decode()
    assert staff.post(url, {"reason": " "}).status_code == 200
    assert api.get("/v2/deeds").status_code == 200
    assert staff.post(url, {"reason": "leaked"}).status_code == 302
    assert api.get("/v2/deeds").json()["code"] == "api_key_revoked"
    api.key.refresh_from_db()
    assert api.key.revoked_reason == "leaked"
    assert "leaked" in LogEntry.objects.get().change_message


def test_the_secret_partner_and_mode_of_a_key_can_not_be_edited(
    staff: Client, api: Api, stranger: Api
) -> None:
    form = {
        "name": "Renamed",
        "scopes": ["deed:read"],
        "rate_limit_per_minute": "60",
        "rate_limit_burst": "10",
        "partner": str(stranger.partner.pk),
        "environment": "test",
        "secret_sha256": "0" * 64,
    }
    assert staff.post(f"/admin/keys/apikey/{api.key.pk}/change/", form).status_code == 302
    before, api.key = api.key, ApiKey.objects.get(pk=api.key.pk)
    assert (api.key.name, api.key.scopes) == ("Renamed", ["deed:read"])
    same = ("partner_id", "environment", "secret_sha256", "key_id")
    assert [getattr(api.key, name) for name in same] == [getattr(before, name) for name in same]


def test_without_a_login_there_is_only_the_login(client: Client, api: Api) -> None:
    for path in ("", "add/", f"{api.key.pk}/change/", f"{api.key.pk}/revoke/"):
        answer = client.get(f"/admin/keys/apikey/{path}")
        assert answer.status_code == 302
        assert re.match(r"/admin/login/\?next=", answer["Location"])


def test_staff_without_the_permission_revoke_nothing(
    client: Client, django_user_model: Any, api: Api
) -> None:
    client.force_login(django_user_model.objects.create_user("clerk", password="x", is_staff=True))
    url = f"/admin/keys/apikey/{api.key.pk}/revoke/"
    assert client.post(url, {"reason": "x"}).status_code == 403
    api.key.refresh_from_db()
    assert api.key.revoked_at is None


def test_a_form_without_its_token_is_refused(django_user_model: Any, api: Api) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(django_user_model.objects.create_superuser("root", password="x"))
    assert strict.post(f"/admin/keys/apikey/{api.key.pk}/revoke/", {"reason": "x"}).status_code == 403


def test_keys_and_partners_can_not_be_deleted(staff: Client, api: Api) -> None:
    assert staff.post(f"/admin/keys/apikey/{api.key.pk}/delete/", {"post": "yes"}).status_code == 403
    assert staff.post(f"/admin/keys/partner/{api.partner.pk}/delete/", {"post": "yes"}).status_code == 403
    assert ApiKey.objects.exists()
