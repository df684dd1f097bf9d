"""Staff make and change partners' endpoints, by the same rules as partners do."""

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client

from keys.models import AuditEntry, Partner
from tests.api import Api
from tests.staff import hire, log_in
from tests.webhooks.conftest import Receiver, verified
from tests.webhooks.test_admin import Register, _audited, _page
from webhooks import delivery, outbox, registering, stopping
from webhooks.event_types import KeyNews
from webhooks.models import Endpoint

ADD = "/admin/webhooks/endpoint/add/"


@pytest.fixture(autouse=True)
def _no_workers(hinted: list[str]) -> None:
    """Rows are worked on by the tests' own calls."""


def _form(partner: Partner, url: str, **changes: Any) -> dict[str, Any]:
    form = {"partner": str(partner.pk), "livemode": "on", "url": url, "event_types": ["key.*"]}
    return form | {"description": "ours"} | changes


def _secret(answer: Any) -> str:
    assert answer.status_code == 200, answer
    assert "no-store" in answer["Cache-Control"]
    found = re.findall(r"whsec_[A-Za-z0-9+/=]+", answer.content.decode())
    assert len(found) == 1
    return str(found[0])


def _news(partner: Partner) -> None:
    news = KeyNews(key=partner.pk, prefix="dp_live_x", expires_at=None)
    outbox.publish("key.revoked", news, partner=partner, livemode=True)
    delivery.pump()


def test_it_works(staff: Client, acme: Partner, receiver: Receiver) -> None:
    assert staff.get(ADD).status_code == 200
    secret = _secret(staff.post(ADD, _form(acme, receiver.url)))
    endpoint = Endpoint.objects.get()
    assert (endpoint.partner, endpoint.livemode, endpoint.enabled) == (acme, True, True)
    assert (endpoint.url, endpoint.event_types, endpoint.description) == (receiver.url, ["key.*"], "ours")
    _news(acme)
    verified(receiver.received[0], secret)
    entry = _audited().get()
    assert (entry.action, entry.actor, entry.partner) == ("webhook_endpoint.created", "root", acme)


def test_a_secret_is_shown_once_and_kept_nowhere_in_the_clear(
    staff: Client, acme: Partner, receiver: Receiver, caplog: Any
) -> None:
    made = _secret(staff.post(ADD, _form(acme, receiver.url)))
    endpoint = Endpoint.objects.get()
    url = f"/admin/webhooks/endpoint/{endpoint.pk}/rotate_secret/"
    assert "24 hours" in staff.get(url).content.decode()
    fresh = _secret(staff.post(url, {"reason": "it leaked"}))
    assert fresh != made
    pages = "".join(
        _page(staff, path)
        for path in ("endpoint/", f"endpoint/{endpoint.pk}/change/", f"endpoint/{endpoint.pk}/history/")
    )
    sessions = [session.get_decoded() for session in Session.objects.all()]
    kept = repr([*LogEntry.objects.values(), *AuditEntry.objects.values(), *Endpoint.objects.values("url")])
    with connection.cursor() as cursor:
        cursor.execute("SELECT secrets FROM webhook_endpoints")
        sealed = cursor.fetchall()
    for secret in (made, fresh):
        for text in (pages, repr(sessions), kept, repr(sealed), caplog.text, str(staff.cookies)):
            assert secret not in text
            assert secret.removeprefix("whsec_") not in text
    actions = _audited().order_by("id").values_list("action", "reason")
    assert list(actions) == [
        ("webhook_endpoint.created", ""),
        ("webhook_endpoint.secret_rotated", "it leaked"),
    ]


def test_both_secrets_sign_while_they_overlap(staff: Client, acme: Partner, receiver: Receiver) -> None:
    made = _secret(staff.post(ADD, _form(acme, receiver.url)))
    endpoint = Endpoint.objects.get()
    fresh = _secret(staff.post(f"/admin/webhooks/endpoint/{endpoint.pk}/rotate_secret/", {"reason": "x"}))
    _news(acme)
    for secret in (made, fresh):
        verified(receiver.received[0], secret)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "http://hooks.example.com/"}, "https"),
        ({"url": "https://127.0.0.1/"}, "public"),
        ({"url": "https://169.254.169.254/latest/meta-data/"}, "public"),
        ({"url": "https://0x7f000001/"}, "four decimal numbers"),
        ({"url": "https://user:password@hooks.example.com/"}, "user name"),
        ({"url": "https://localhost./"}, "public"),
        ({"url": ""}, "This field is required"),
        ({"event_types": ["deed.compelted"]}, "deed.compelted is not one of the available choices"),
        ({"event_types": []}, "This field is required"),
        ({"description": "x" * 201}, "at most 200 characters"),
        ({"partner": "01900000-0000-7000-8000-000000000000"}, "not one of the available choices"),
    ],
)
def test_what_a_partner_may_not_register_staff_may_not_either(
    staff: Client, acme: Partner, register: Register, changes: dict[str, Any], message: str
) -> None:
    answer = staff.post(ADD, _form(acme, "https://93.184.216.34/") | changes)
    assert answer.status_code == 200
    assert message in answer.content.decode()
    assert "whsec_" not in answer.content.decode()
    assert not Endpoint.objects.exists()
    assert not _audited().exists()
    if "partner" in changes:
        return
    endpoint = register("https://93.184.216.34/")
    form = _form(acme, endpoint.url) | changes | {"reason": "x"}
    answer = staff.post(f"/admin/webhooks/endpoint/{endpoint.pk}/edit/", form)
    assert message in answer.content.decode()
    endpoint.refresh_from_db()
    assert (endpoint.url, endpoint.event_types, endpoint.description) == ("https://93.184.216.34/", ["*"], "")
    assert not _audited().exists()


def test_an_endpoint_is_edited_with_a_reason(staff: Client, acme: Partner, register: Register) -> None:
    endpoint = register("https://93.184.216.34/old")
    url = f"/admin/webhooks/endpoint/{endpoint.pk}/edit/"
    assert "https://93.184.216.34/old" in staff.get(url).content.decode()
    form = _form(acme, "https://93.184.216.34/new?token=t", event_types=["deed.*", "key.revoked"])
    assert staff.post(url, form).status_code == 200
    assert Endpoint.objects.get().url == "https://93.184.216.34/old", "without a reason nothing is done"
    assert staff.post(url, {**form, "reason": "they moved"}).status_code == 302
    endpoint.refresh_from_db()
    assert endpoint.url == "https://93.184.216.34/new?token=t"
    assert endpoint.event_types == ["deed.*", "key.revoked"]
    entry = _audited().get()
    assert (entry.action, entry.reason) == ("webhook_endpoint.changed", "they moved")
    assert entry.after["url"] == "https://93.184.216.34/new"
    assert "token" not in repr(AuditEntry.objects.values())


def test_an_endpoint_of_test_keys(staff: Client, acme: Partner) -> None:
    form = _form(acme, "https://93.184.216.34/")
    del form["livemode"]
    _secret(staff.post(ADD, form))
    assert Endpoint.objects.get().livemode is False


def test_there_are_as_many_endpoints_as_a_partner_may_have(
    staff: Client, acme: Partner, monkeypatch: Any
) -> None:
    monkeypatch.setattr(registering, "MAX_ENDPOINTS", 1)
    form = _form(acme, "https://93.184.216.34/")
    _secret(staff.post(ADD, form))
    assert "delete one first" in staff.post(ADD, form).content.decode()
    assert Endpoint.objects.count() == 1


def test_a_deleted_endpoint_is_left_alone(staff: Client, register: Register) -> None:
    endpoint = register("https://93.184.216.34/")
    stopping.delete(endpoint)
    before = Endpoint.objects.values().get()
    url = f"/admin/webhooks/endpoint/{endpoint.pk}"
    page = staff.get(f"{url}/change/").content.decode()
    form = {"url": "https://a.example.com/", "event_types": ["*"], "since": "2026-01-01T00:00"}
    for act in ("edit", "test", "rotate_secret", "enable", "disable", "replay", "remove"):
        assert f"{endpoint.pk}/{act}/" not in page
        staff.post(f"{url}/{act}/", {"reason": "x", **form})
    assert Endpoint.objects.values().get() == before
    assert not _audited().exists()


@pytest.mark.usefixtures("quick_passwords")
def test_events_since_a_time_are_sent_again(
    receiver: Receiver, register: Register, tell: Any, clock: Any
) -> None:
    endpoint = register(receiver.url)
    tell()
    clock.shift(3600)
    late = tell()
    delivery.pump()
    receiver.received.clear()
    staff = log_in(hire("root", "owner"))
    url = f"/admin/webhooks/endpoint/{endpoint.pk}/replay/"
    assert url in staff.get(f"/admin/webhooks/endpoint/{endpoint.pk}/change/").content.decode()
    since: dict[str, str] = {"since": "2026-11-24T08:30"}  # UTC, as datetime-local sends it
    for wrong in ({}, since, {"reason": "lost"}, {"reason": "lost", "since": "yesterday"}):
        assert staff.post(url, wrong).status_code == 200
    # It has received them all.
    staff.post(url, {**since, "undelivered_only": "on", "reason": "to be sure"})
    delivery.pump()
    assert receiver.received == []
    page = staff.post(url, {**since, "reason": "lost"}, follow=True).content.decode()
    assert "sent once more: 1" in page
    delivery.pump()
    assert [one.headers["webhook-id"] for one in receiver.received] == [str(late.pk)]
    entry = _audited().last()
    assert (entry.action, entry.reason) == ("webhook_endpoint.replayed", "lost")
    assert entry.after == {"since": "2026-11-24T08:30:00+00:00", "undelivered_only": False, "queued": 1}


def test_an_endpoint_is_deleted_as_by_its_partner(
    staff: Client, api: Api, receiver: Receiver, register: Register, tell: Any
) -> None:
    endpoint = register(receiver.url)
    tell()
    url, path = f"/admin/webhooks/endpoint/{endpoint.pk}/remove/", f"/v2/webhook-endpoints/{endpoint.pk}"
    assert staff.get(url).status_code == 200
    assert staff.post(url, {"reason": " "}).status_code == 200
    assert api.get(path).status_code == 200
    assert staff.post(url, {"reason": "asked for by phone"}).status_code == 302
    assert api.get(path).status_code == 404
    tell()
    delivery.pump()
    assert receiver.received == []
    # What was sent stays readable, by staff too.
    assert staff.get(f"/admin/webhooks/endpoint/{endpoint.pk}/change/").status_code == 200
    assert Endpoint.objects.get().disabled_reason == "by_staff"
    assert [one["status"] for one in api.get("/v2/webhook-deliveries").json()["data"]] == ["cancelled"]
    entry = _audited().get()
    assert (entry.action, entry.reason) == ("webhook_endpoint.deleted", "asked for by phone")


def test_a_description_is_edited_while_the_name_has_no_address(staff: Client, register: Register) -> None:
    endpoint = register("https://gone.invalid/", "key.*")
    form = {"url": endpoint.url, "event_types": ["key.*"], "description": "moves", "reason": "by phone"}
    url = f"/admin/webhooks/endpoint/{endpoint.pk}/edit/"
    assert staff.post(url, form).status_code == 302
    assert Endpoint.objects.get().description == "moves"
    other = staff.post(url, form | {"url": "https://other.invalid/"}).content.decode()
    assert "be resolved" in other
    assert Endpoint.objects.get().url == "https://gone.invalid/"
