"""Staff and keys: issued once to see, edited, rotated, revoked and suspended with a reason."""

import datetime as dt
import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from keys import audit, lifecycle, roles
from keys.models import ApiKey, AuditEntry, Partner
from keys.secret import PATTERN, KeyText
from tests.api import Api
from tests.staff import STALE, code_of, hire, log_in, seen

KEY_FORM = {
    "name": "Renamed",
    "scopes": ["deed:read"],
    "rate_limit_per_minute": "60",
    "rate_limit_burst": "10",
    "allowed_cidrs": "",
    "reason": "asked by phone",
}


def _issue(staff: Client, partner: Partner, **changes: Any) -> Any:
    form = {
        "partner": str(partner.pk),
        "name": "SoftPro",
        "environment": "live",
        "scopes": ["deed:create", "deed:read"],
        "rate_limit_per_minute": "120",
        "rate_limit_burst": "30",
        "allowed_cidrs": "",
        "expires_at_0": "",
        "expires_at_1": "",
    }
    return staff.post("/admin/keys/apikey/add/", form | changes)


def _text_in(page: str) -> KeyText:
    found = PATTERN.search(page)
    assert found is not None
    text = KeyText.parse(found[0])
    assert text is not None
    return text


def _is_nowhere(staff: Client, text: KeyText, key: ApiKey) -> None:
    """The secret is on no page after, in no session, message, history, entry or row."""
    pages = [
        f"/admin/keys/apikey/{key.pk}/change/",
        f"/admin/keys/apikey/{key.pk}/history/",
        "/admin/keys/apikey/",
        "/admin/",
        "/admin/keys/auditentry/",
        *(f"/admin/keys/auditentry/{entry.pk}/change/" for entry in AuditEntry.objects.all()),
    ]
    elsewhere = "".join(staff.get(path).content.decode() for path in pages)
    kept = repr(
        [
            *LogEntry.objects.values(),
            *(session.get_decoded() for session in Session.objects.all()),
            *AuditEntry.objects.values(),
            *ApiKey.objects.values(),
            *staff.cookies.items(),
        ]
    )
    assert key.key_id in elsewhere
    assert text.secret not in elsewhere
    assert text.secret not in kept


def test_a_key_is_issued_and_shown_once(
    staff: Client, acme: Partner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    answer = _issue(staff, acme, allowed_cidrs="127.0.0.0/8\n2001:db8::/32")
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    text = _text_in(answer.content.decode())
    key = ApiKey.objects.get()
    assert key.matches(text)
    assert key.scopes == ["deed:create", "deed:read"]
    assert key.allowed_cidrs == ["127.0.0.0/8", "2001:db8::/32"]
    assert Api(acme, key, text.text).get("/v2/deeds").status_code == 200
    _is_nowhere(staff, text, key)
    assert text.secret not in caplog.text
    entry = AuditEntry.objects.get(action="key.issued")
    assert (entry.actor_kind, entry.actor, entry.target_id) == ("staff", "root", str(key.pk))


def test_a_rotated_key_is_shown_once_and_the_old_one_works_on(staff: Client, api: Api) -> None:
    url = f"/admin/keys/apikey/{api.key.pk}/rotate/"
    assert "3 days" in staff.get(url).content.decode()
    assert staff.post(url, {"overlap": "3600", "reason": ""}).status_code == 200
    assert ApiKey.objects.count() == 1
    answer = staff.post(url, {"overlap": "3600", "reason": "yearly"})
    assert "no-store" in answer["Cache-Control"]
    text = _text_in(answer.content.decode())
    new = ApiKey.objects.get(key_id=text.id)
    assert Api(api.partner, new, text.text).get("/v2/deeds").status_code == 200
    assert api.get("/v2/deeds").status_code == 200
    _is_nowhere(staff, text, new)
    again = staff.post(url, {"overlap": "3600", "reason": "twice"}).content.decode()
    assert "rotated already" in again
    assert ApiKey.objects.count() == 2


def test_a_form_with_an_error_issues_nothing(staff: Client, acme: Partner) -> None:
    answer = _issue(staff, acme, name="")
    assert answer.status_code == 200
    assert PATTERN.search(answer.content.decode()) is None
    assert not ApiKey.objects.exists()


def test_a_key_is_revoked_with_a_reason(staff: Client, api: Api) -> None:
    url = f"/admin/keys/apikey/{api.key.pk}/revoke/"
    assert "refused from now on" in staff.get(url).content.decode()
    assert staff.post(url, {"reason": " "}).status_code == 200
    assert api.get("/v2/deeds").status_code == 200
    assert staff.post(url, {"reason": "leaked"}).status_code == 302
    assert api.get("/v2/deeds").json()["code"] == "api_key_revoked"
    api.key.refresh_from_db()
    assert api.key.revoked_reason == "leaked"
    assert "leaked" in LogEntry.objects.get().change_message
    entry = AuditEntry.objects.get(action="key.revoked")
    assert (entry.actor, entry.reason) == ("root", "leaked")


def test_a_key_that_is_pasted_into_its_reason_is_nowhere_after(staff: Client, api: Api) -> None:
    """With an overlap it still works, and those who may only read see the history."""
    text = KeyText.parse(api.text)
    assert text is not None
    url = f"/admin/keys/apikey/{api.key.pk}/"
    form = {"overlap": "86400", "reason": f"{api.text} is in a repository"}
    assert staff.post(f"{url}rotate/", form).status_code == 200
    _is_nowhere(staff, text, api.key)
    assert staff.post(f"{url}revoke/", {"reason": f"used: {api.text}"}).status_code == 302
    _is_nowhere(staff, text, api.key)
    assert ApiKey.objects.get(pk=api.key.pk).revoked_reason == f"used: {text.prefix}[redacted]"


def test_what_no_page_of_ours_asks_for_breaks_none(staff: Client, acme: Partner) -> None:
    """Addresses that somebody typed, or a link of another version."""
    page = staff.get("/admin/keys/apikey/add/?partner=abc&scopes=x&expires_at=y")
    assert page.status_code == 200
    assert (
        f'value="{acme.pk}" selected'
        in staff.get(f"/admin/keys/apikey/add/?partner={acme.pk}").content.decode()
    )
    found = "/admin/autocomplete/?app_label=keys&model_name=apikey&field_name=partner&term="
    assert [one["text"] for one in staff.get(f"{found}Acme").json()["results"]] == ["Acme Title"]
    assert staff.get(f"{found}%00").status_code == 200


def test_a_name_is_no_place_for_a_key(staff: Client, acme: Partner) -> None:
    other = KeyText.generate("live").text
    page = _issue(staff, acme, name=f"in place of {other}")
    assert "can&#x27;t stand here" in page.content.decode()
    assert not ApiKey.objects.exists()


def test_the_secret_partner_and_mode_of_a_key_can_not_be_edited(
    staff: Client, api: Api, stranger: Api
) -> None:
    form = {
        **KEY_FORM,
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


def test_a_form_without_its_token_is_refused(quick_passwords: None, api: Api) -> None:
    strict = Client(enforce_csrf_checks=True)
    user = hire("root", "owner")
    page = strict.get("/admin/login/").content.decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert token is not None
    log_in(user, strict, csrfmiddlewaretoken=token[1])
    assert strict.post(f"/admin/keys/apikey/{api.key.pk}/revoke/", {"reason": "x"}).status_code == 403
    api.key.refresh_from_db()
    assert api.key.revoked_at is None
    assert code_of(user)


@pytest.mark.parametrize("act", ["revoke", "rotate"])
def test_opening_the_page_of_an_act_does_nothing(staff: Client, api: Api, act: str) -> None:
    assert staff.get(f"/admin/keys/apikey/{api.key.pk}/{act}/?reason=x&overlap=0").status_code == 200
    assert ApiKey.objects.get().revoked_at is None
    assert not AuditEntry.objects.filter(action__startswith="key.").exists()


def test_a_narrower_key_holds_on_the_next_request(staff: Client, api: Api) -> None:
    form = {**KEY_FORM, "scopes": [], "allowed_cidrs": "203.0.113.0/24"}
    assert staff.post(f"/admin/keys/apikey/{api.key.pk}/change/", form).status_code == 302
    assert api.get("/v2/deeds").status_code in {401, 403}
    entry = AuditEntry.objects.get(action="key.changed")
    assert entry.after["allowed_cidrs"] == ["203.0.113.0/24"]
    assert entry.before["rate_limit_per_minute"] == api.key.rate_limit_per_minute
    assert entry.reason == "asked by phone"


@pytest.mark.parametrize("reason", ["", "  ", "x" * 201])
def test_an_edit_without_a_reason_changes_nothing(staff: Client, api: Api, reason: str) -> None:
    for path, form in (
        (f"apikey/{api.key.pk}", KEY_FORM),
        (f"partner/{api.partner.pk}", {"name": "Renamed"}),
    ):
        answer = staff.post(f"/admin/keys/{path}/change/", {**form, "reason": reason})
        assert answer.status_code == 200
        assert 'name="reason"' in answer.content.decode()
    assert ApiKey.objects.get().name == api.key.name
    assert Partner.objects.get().name == "Acme Title"
    assert not AuditEntry.objects.filter(action__endswith=".changed").exists()


def test_a_page_that_was_opened_before_a_key_was_narrowed_does_not_widen_it(staff: Client, api: Api) -> None:
    url = f"/admin/keys/apikey/{api.key.pk}/change/"
    form = {**KEY_FORM, "scopes": list(api.key.scopes), "seen": seen(staff, url)}
    command = audit.Actor.command("test")
    lifecycle.change(command, api.key, scopes=["deed:read"], allowed_cidrs=["10.0.0.0/8"])
    late = staff.post(url, form)
    assert late.status_code == 200
    assert STALE in late.content.decode()
    kept = ApiKey.objects.get()
    assert (kept.name, kept.scopes, kept.allowed_cidrs) == (api.key.name, ["deed:read"], ["10.0.0.0/8"])
    assert staff.post(url, {**form, "seen": seen(staff, url)}).status_code == 302


def test_nor_does_one_of_a_partner_or_a_person(quick_passwords: None, api: Api) -> None:
    owner, clerk = log_in(hire("owner", "owner")), hire("clerk", "support", "finance")
    finance = clerk.groups.get(name=roles.TITLES["finance"])
    partner_url = f"/admin/keys/partner/{api.partner.pk}/change/"
    clerk_url = f"/admin/auth/user/{clerk.pk}/change/"
    of_partner = {"name": "Acme", "reason": "renamed", "seen": seen(owner, partner_url)}
    groups = [str(group.pk) for group in clerk.groups.all()]
    of_clerk = {"username": "clerk", "email": "c@d.example", "groups": groups, "reason": "moved"}
    of_clerk["seen"] = seen(owner, clerk_url)
    lifecycle.change_partner(audit.Actor.command("test"), api.partner, monthly_deed_quota=5)
    clerk.groups.remove(finance)
    for url, form in ((partner_url, of_partner), (clerk_url, of_clerk)):
        assert STALE in owner.post(url, form).content.decode()
    assert Partner.objects.get().monthly_deed_quota == 5
    assert not clerk.groups.filter(pk=finance.pk).exists()
    of_clerk |= {"groups": groups[:1], "seen": seen(owner, clerk_url)}
    assert owner.post(clerk_url, of_clerk).status_code == 302
    assert owner.post(partner_url, {**of_partner, "seen": seen(owner, partner_url)}).status_code == 302


def test_who_may_only_look_is_asked_for_no_reason(quick_passwords: None, api: Api) -> None:
    reader = log_in(hire("reader", "support"))
    for path in (f"apikey/{api.key.pk}", f"partner/{api.partner.pk}"):
        page = reader.get(f"/admin/keys/{path}/change/")
        assert page.status_code == 200
        assert 'name="reason"' not in page.content.decode()


def test_a_wrong_network_is_named(staff: Client, api: Api) -> None:
    form = {**KEY_FORM, "allowed_cidrs": "the office"}
    answer = staff.post(f"/admin/keys/apikey/{api.key.pk}/change/", form)
    assert answer.status_code == 200
    assert "203.0.113.0/24" in answer.content.decode()
    assert not AuditEntry.objects.filter(action="key.changed").exists()


def test_a_revoked_key_can_not_be_edited(staff: Client, api: Api) -> None:
    lifecycle.revoke(audit.Actor.command("test"), api.key, reason="leaked")
    assert staff.post(f"/admin/keys/apikey/{api.key.pk}/change/", KEY_FORM).status_code == 403
    assert ApiKey.objects.get().name != "Renamed"


def test_a_rotated_key_ends_when_its_overlap_does(staff: Client, api: Api) -> None:
    lifecycle.rotate(audit.Actor.command("test"), api.key, overlap=dt.timedelta(hours=1))
    ends = api.key.expires_at
    form = {**KEY_FORM, "expires_at_0": "2030-01-01", "expires_at_1": "00:00"}
    assert staff.post(f"/admin/keys/apikey/{api.key.pk}/change/", form).status_code == 302
    api.key.refresh_from_db()
    assert (api.key.name, api.key.expires_at) == ("Renamed", ends)


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ("active", {"plain", "soon", "old"}),
        ("expiring", {"soon"}),
        ("due", {"old"}),
        ("unused", {"plain", "soon"}),
        ("ended", {"revoked", "expired"}),
    ],
)
def test_keys_are_found_by_state(staff: Client, acme: Partner, state: str, shown: set[str]) -> None:
    now, day = timezone.now(), dt.timedelta(days=1)
    policy = Partner.objects.create(name="With a policy", key_max_age_days=90)
    for name, partner, fields in (
        ("plain", acme, {}),
        ("soon", acme, {"expires_at": now + 3 * day}),
        ("expired", acme, {"expires_at": now - day}),
        ("revoked", acme, {"revoked_at": now}),
        ("old", policy, {"created_at": now - 80 * day, "last_used_at": now}),
    ):
        key, _ = ApiKey.issue(partner, name=f"named {name}", environment="live")
        ApiKey.objects.filter(pk=key.pk).update(**fields)
    page = staff.get("/admin/keys/apikey/", {"state": state}).content.decode()
    assert set(re.findall(r"named (\w+)", page)) == shown


def test_a_partner_is_made_edited_suspended_and_taken_back(staff: Client, api: Api) -> None:
    assert staff.post("/admin/keys/partner/add/", {"name": "New Escrow"}).status_code == 302
    assert Partner.objects.filter(name="New Escrow").exists()
    url = f"/admin/keys/partner/{api.partner.pk}/"
    form = {"name": "Acme Title", "budget_cap": "500.00", "status": "suspended", "reason": "agreed"}
    assert staff.post(f"{url}change/", form).status_code == 302
    assert api.get("/v2/deeds").status_code == 200, "status is no field of the form"
    assert staff.post(f"{url}suspend/", {"reason": ""}).status_code == 200
    assert api.get("/v2/deeds").status_code == 200
    assert staff.post(f"{url}suspend/", {"reason": "unpaid"}).status_code == 302
    assert api.get("/v2/deeds").json()["code"] == "partner_suspended"
    assert staff.post(f"{url}reactivate/", {"reason": "paid"}).status_code == 302
    assert api.get("/v2/deeds").status_code == 200
    entries = AuditEntry.objects.filter(action__startswith="partner.").order_by("id")
    assert [(entry.action, entry.reason) for entry in entries] == [
        ("partner.created", ""),
        ("partner.changed", "agreed"),
        ("partner.suspended", "unpaid"),
        ("partner.reactivated", "paid"),
    ]
    assert entries[1].after == {"budget_cap": "500.00"}


def test_two_partners_have_two_names(staff: Client, api: Api, stranger: Api) -> None:
    answer = staff.post(
        f"/admin/keys/partner/{api.partner.pk}/change/", {"name": stranger.partner.name, "reason": "x"}
    )
    assert answer.status_code == 200
    assert "already exists" in answer.content.decode()


def test_keys_and_partners_can_not_be_deleted(staff: Client, api: Api) -> None:
    assert staff.post(f"/admin/keys/apikey/{api.key.pk}/delete/", {"post": "yes"}).status_code == 403
    assert staff.post(f"/admin/keys/partner/{api.partner.pk}/delete/", {"post": "yes"}).status_code == 403
    assert ApiKey.objects.exists()
