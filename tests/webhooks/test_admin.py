"""Webhooks in the admin."""

import datetime as dt
import hashlib
import hmac
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone

from deeds.models import Deed
from keys.models import ApiKey, AuditEntry, Partner
from tests.staff import hire, log_in
from tests.webhooks.conftest import Receiver
from tests.webhooks.inbound_calls import FIRST
from webhooks import delivery, outbox, tasks
from webhooks.event_types import KeyEndNews, KeyNews
from webhooks.models import Delivery, Endpoint, InboundEvent, Source

Register = Callable[..., Endpoint]


@pytest.fixture(autouse=True)
def _no_workers(hinted: list[str]) -> None:
    """Rows are worked on by the tests' own calls."""


def _page(staff: Client, path: str) -> str:
    answer = staff.get(f"/admin/webhooks/{path}")
    assert answer.status_code == 200
    return answer.content.decode()


def _audited() -> Any:
    """Without the login itself."""
    return AuditEntry.objects.exclude(action__startswith="staff.")


def _receive(secret: str, payload: Any) -> Any:
    body, at = json.dumps(payload).encode(), str(int(timezone.now().timestamp()))
    signature = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    headers = {"X-Signature": signature, "X-Webhook-Timestamp": at}
    return Client().post("/v1/webhooks/qualia", body, content_type="application/json", headers=headers)


def test_a_source_is_made_its_secret_shown_once_and_rotated(staff: Client, acme: Partner) -> None:
    form = {"system": "qualia", "partner": str(acme.pk), "livemode": "on", "strict": "on", "enabled": "on"}
    answer = staff.post("/admin/webhooks/source/add/", form)
    assert "no-store" in answer["Cache-Control"]
    secret = re.search(r"[0-9a-f]{64}", answer.content.decode())
    assert secret is not None
    source = Source.objects.get()
    assert _receive(secret[0], FIRST).status_code == 202
    pages = "".join(_page(staff, path) for path in ("source/", f"source/{source.pk}/change/"))
    kept = repr([*LogEntry.objects.values(), *AuditEntry.objects.values()])
    assert secret[0] not in pages + kept
    url = f"source/{source.pk}/rotate/"
    assert "24 hours" in _page(staff, url)
    assert not re.search(r"[0-9a-f]{64}", staff.post(f"/admin/webhooks/{url}").content.decode())
    rotated = staff.post(f"/admin/webhooks/{url}", {"reason": "seen in an e-mail"})
    assert "no-store" in rotated["Cache-Control"]
    fresh = re.search(r"[0-9a-f]{64}", rotated.content.decode())
    assert fresh is not None
    assert fresh[0] != secret[0]
    for number, text in enumerate((secret[0], fresh[0])):
        assert _receive(text, FIRST | {"order_id": f"Q-{number}"}).status_code == 202
    assert list(_audited().order_by("id").values_list("action", "reason")) == [
        ("webhook_source.created", ""),
        ("webhook_source.secret_rotated", "seen in an e-mail"),
    ]


def test_a_leaked_secret_of_a_source_ends_at_once(staff: Client, source: Callable[..., Source]) -> None:
    made = source("qualia")
    answer = staff.post(
        f"/admin/webhooks/source/{made.pk}/rotate/", {"is_leaked": "on", "reason": "it stood in a forum"}
    )
    fresh = re.search(r"[0-9a-f]{64}", answer.content.decode())
    assert fresh is not None
    assert _receive("secret", FIRST).status_code == 401
    assert _receive(fresh[0], FIRST).status_code == 202
    assert _audited().get().after == {"earlier_end_at_once": True}


def test_a_source_is_disabled_and_enabled_and_made_less_strict(
    staff: Client, source: Callable[..., Source]
) -> None:
    made = source("qualia")
    page = f"source/{made.pk}/"
    url = f"/admin/webhooks/{page}"
    assert staff.post(f"{url}disable/", {"reason": ""}).status_code == 200
    assert _receive("secret", FIRST).status_code == 202, "without a reason nothing is done"
    # An edit can't do what the act asks a reason for.
    staff.post(f"{url}change/", {"strict": "on", "reason": "x"})
    assert Source.objects.get().enabled
    staff.post(f"{url}disable/", {"reason": "it sends nonsense"})
    assert _receive("secret", FIRST | {"order_id": "2"}).status_code == 401
    assert f"{page}disable/" not in _page(staff, f"{page}change/")
    staff.post(f"{url}enable/", {"reason": "mended"})
    assert _receive("secret", FIRST | {"order_id": "3"}).status_code == 202
    assert staff.post(f"{url}change/", {"strict": ""}).status_code == 200
    assert Source.objects.get().strict
    staff.post(f"{url}change/", {"strict": "", "reason": "its clock is wrong"})
    assert not Source.objects.get().strict
    entries = list(_audited().order_by("id"))
    assert [(entry.action, entry.reason) for entry in entries] == [
        ("webhook_source.disabled", "it sends nonsense"),
        ("webhook_source.enabled", "mended"),
        ("webhook_source.changed", "its clock is wrong"),
    ]
    assert (entries[0].before["enabled"], entries[0].after["enabled"]) == (True, False)


def test_what_needs_attention_is_corrected_and_replayed(
    staff: Client, source: Callable[..., Source], acme: Partner
) -> None:
    source("qualia")
    _receive("secret", FIRST | {"deed_type": "lease"})
    _receive("secret", FIRST | {"order_id": "fine"})
    tasks.process()
    broken = InboundEvent.objects.get(status="needs_attention")
    page = _page(staff, "inboundevent/")
    assert "unknown_deed_type" in page or "validation_error" in page
    assert str(broken.pk) in page
    assert str(InboundEvent.objects.get(status="processed").pk) not in page
    assert str(InboundEvent.objects.get(status="processed").pk) in _page(staff, "inboundevent/?status=all")
    assert "There is no deed type" in _page(staff, f"inboundevent/{broken.pk}/change/")
    url = f"inboundevent/{broken.pk}/correct/"
    assert "&quot;lease&quot;" in _page(staff, url)
    corrected = json.dumps(FIRST, indent=2).replace("\n", "\r\n")
    assert staff.post(f"/admin/webhooks/{url}", {"body": corrected}).status_code == 200
    assert InboundEvent.objects.filter(status="needs_attention").exists()
    form = {"body": corrected, "reason": "typing error, by phone with Acme"}
    assert staff.post(f"/admin/webhooks/{url}", form).status_code == 302
    tasks.process()
    assert Deed.objects.filter(order_id="SP-1", partner=acme).count() == 1
    entry = _audited().get()
    assert (entry.action, entry.reason) == ("inbound_event.corrected", "typing error, by phone with Acme")
    assert "ALICE" not in json.dumps([entry.before, entry.after])
    again = staff.post(f"/admin/webhooks/{url}", form, follow=True)
    assert "Only an event that needs attention" in again.content.decode()


def test_no_lost_character_gets_into_a_name(staff: Client, source: Callable[..., Source]) -> None:
    source("qualia")
    body = json.dumps({**FIRST, "parties": {"grantor": "JOS\xc9", "grantee": "BOB"}}, ensure_ascii=False)
    at = str(int(timezone.now().timestamp()))
    raw = body.encode("cp1252")
    signature = hmac.new(b"secret", at.encode() + b"." + raw, hashlib.sha256).hexdigest()
    headers = {"X-Signature": signature, "X-Webhook-Timestamp": at}
    Client().post("/v1/webhooks/qualia", raw, content_type="application/json", headers=headers)
    tasks.process()
    event = InboundEvent.objects.get()
    assert event.reason_code == "malformed_json"
    url = f"inboundevent/{event.pk}/correct/"
    page = _page(staff, url)
    assert "not UTF-8" in page
    assert "JOS\xc9" in page
    lost = staff.post(f"/admin/webhooks/{url}", {"body": body.replace("\xc9", "\ufffd"), "reason": "x"})
    assert "where a character was lost" in lost.content.decode()
    assert staff.post(f"/admin/webhooks/{url}", {"body": body, "reason": "read again"}).status_code == 302
    tasks.process()
    assert Deed.objects.get().order["grantors"] == [{"name": "JOS\xc9"}]
    assert _audited().get().action == "inbound_event.corrected"


def test_a_replay_as_it_was_is_no_correction(staff: Client, source: Callable[..., Source]) -> None:
    source("qualia")
    _receive("secret", FIRST | {"deed_type": "lease"})
    tasks.process()
    event = InboundEvent.objects.get()
    url = f"/admin/webhooks/inboundevent/{event.pk}/correct/"
    form = {"body": bytes(event.body).decode(), "reason": "the mapping was mended"}
    assert staff.post(url, form).status_code == 302
    event.refresh_from_db()
    assert (event.status, event.corrected_body) == ("received", "")
    assert _audited().get().action == "inbound_event.replayed"


def test_many_that_were_set_aside_for_one_reason_are_replayed(
    staff: Client, source: Callable[..., Source], acme: Partner
) -> None:
    made = source("qualia")
    for number in range(2):
        _receive("secret", FIRST | {"order_id": f"Q-{number}"})
    _receive("secret", FIRST | {"deed_type": "lease"})
    Partner.objects.update(status="suspended")
    tasks.process()
    Partner.objects.update(status="active")
    InboundEvent.objects.filter(pk=InboundEvent.objects.latest("received_at").pk).update(
        reason_code="validation_error"
    )
    url = "/admin/webhooks/inboundevent/replay_many/"
    assert "partner_suspended (2)" in staff.get(url).content.decode()
    assert "replay_many" in _page(staff, "inboundevent/")
    form = {"which": f"{made.pk} partner_suspended", "reason": ""}
    assert staff.post(url, form).status_code == 200
    assert staff.post(url, form | {"reason": "they have paid"}).status_code == 302
    tasks.process()
    assert sorted(Deed.objects.values_list("order_id", flat=True)) == ["Q-0", "Q-1"]
    assert InboundEvent.objects.filter(status="needs_attention").count() == 1
    assert [(entry.action, entry.reason) for entry in _audited()] == [
        ("inbound_event.replayed", "they have paid")
    ] * 2
    InboundEvent.objects.filter(status="needs_attention").delete()
    assert "there is nothing to replay" in staff.get(url, follow=True).content.decode()


def test_a_shadow_replay_shows_the_difference(staff: Client, source: Callable[..., Source]) -> None:
    source("qualia")
    _receive("secret", FIRST)
    tasks.process()
    event = InboundEvent.objects.get()
    assert "No difference." in _page(staff, f"inboundevent/{event.pk}/shadow/")
    Deed.objects.update(order=Deed.objects.get().order | {"vesting": "otherwise"})
    page = _page(staff, f"inboundevent/{event.pk}/shadow/")
    assert "-  &quot;vesting&quot;: &quot;otherwise&quot;" in page
    assert Deed.objects.count() == 1
    assert {entry.action for entry in _audited()} == {"inbound_event.shadow_replayed"}


def test_an_endpoint_is_tested_disabled_and_enabled(
    staff: Client, receiver: Receiver, register: Register
) -> None:
    endpoint = register(receiver.url)
    page = f"endpoint/{endpoint.pk}/"
    url = f"/admin/webhooks/{page}"
    staff.post(f"{url}test/")
    delivery.pump()
    assert len(receiver.received) == 1
    assert staff.post(f"{url}disable/", {"reason": " "}).status_code == 200
    assert Endpoint.objects.get().enabled, "without a reason nothing is done"
    assert f"{page}enable/" not in _page(staff, f"{page}change/")
    staff.post(f"{url}disable/", {"reason": "it hangs"})
    assert "by_staff" in _page(staff, "endpoint/")
    assert f"{page}test/" not in _page(staff, f"{page}change/")
    assert "is disabled" in staff.post(f"{url}test/").content.decode()
    staff.post(f"{url}enable/", {"reason": "mended"})
    staff.post(f"{url}enable/", {"reason": "once more"})
    endpoint.refresh_from_db()
    assert endpoint.enabled
    assert list(_audited().order_by("id").values_list("action", "reason")) == [
        ("webhook_endpoint.tested", ""),
        ("webhook_endpoint.disabled", "it hangs"),
        ("webhook_endpoint.enabled", "mended"),
    ]
    for act in ("test", "disable", "rotate_secret"):
        assert staff.get(f"{url}{act}/").status_code == 200
    assert Endpoint.objects.get().enabled
    assert _audited().count() == 3


def test_a_delivery_shows_its_attempts_and_is_sent_again(
    staff: Client, receiver: Receiver, register: Register, acme: Partner
) -> None:
    receiver.answer = 500
    register(receiver.url)
    news = KeyNews(key=acme.pk, prefix="dp_live_x", expires_at=None)
    event = outbox.publish("key.revoked", news, partner=acme, livemode=True)
    delivery.pump()
    row = Delivery.objects.get()
    page = _page(staff, f"delivery/{row.pk}/change/")
    assert "http_500" in page
    assert "dp_live_x" in page
    assert str(row.pk) in _page(staff, f"delivery/?q={event.pk}")
    assert f"{row.pk}/change" not in _page(staff, f"delivery/?q={acme.pk}")
    receiver.answer = 200
    url = f"/admin/webhooks/delivery/{row.pk}/resend/"
    assert url in _page(staff, f"delivery/{row.pk}/change/")
    assert "once more" in staff.get(url).content.decode()
    assert staff.post(url).status_code == 200
    delivery.pump()
    assert len(receiver.received) == 1, "without a reason nothing is sent"
    assert staff.post(url, {"reason": "it was away"}).status_code == 302
    delivery.pump()
    row.refresh_from_db()
    assert row.status == "succeeded"
    entry = _audited().get()
    assert (entry.action, entry.reason) == ("webhook_delivery.resent", "it was away")
    staff.post(f"/admin/webhooks/endpoint/{row.endpoint_id}/disable/", {"reason": "x"})
    assert "is disabled" in staff.post(url, {"reason": "again"}).content.decode()
    assert _audited().filter(action="webhook_delivery.resent").count() == 1


def test_staff_without_the_permission_change_nothing(
    quick_passwords: None, register: Register, source: Callable[..., Source]
) -> None:
    client = log_in(hire("clerk", "support"))
    endpoint, made = register("https://a.example.com/"), source()
    for act in ("disable", "enable", "test", "rotate_secret", "edit", "replay", "remove"):
        url = f"/admin/webhooks/endpoint/{endpoint.pk}/{act}/"
        assert client.post(url, {"reason": "x"}).status_code == 403
    for act in ("rotate", "disable", "enable"):
        url = f"/admin/webhooks/source/{made.pk}/{act}/"
        assert client.post(url, {"reason": "x"}).status_code == 403
    endpoint.refresh_from_db()
    assert endpoint.enabled
    assert Source.objects.get().secrets == made.secrets


def test_nothing_here_is_edited_in_place_or_deleted(staff: Client, register: Register) -> None:
    endpoint = register("https://a.example.com/")
    path = f"/admin/webhooks/endpoint/{endpoint.pk}"
    for model in ("delivery", "inboundevent"):
        assert staff.get(f"/admin/webhooks/{model}/add/").status_code == 403
    assert staff.post(f"{path}/delete/", {"post": "yes"}).status_code == 403
    assert 'type="submit" name="_' not in staff.get(f"{path}/change/").content.decode()
    staff.post(f"{path}/change/", {"url": "https://evil.example.com/"})
    assert Endpoint.objects.get().url == "https://a.example.com/"


def test_lists_cost_a_constant_number_of_queries(
    staff: Client, register: Register, acme: Partner, django_assert_max_num_queries: Any
) -> None:
    register("https://a.example.com/")
    key, _ = ApiKey.issue(acme, name="x", environment="live")
    for _ in range(12):
        ends = dt.datetime.now(dt.UTC)
        news = KeyEndNews(key=key.pk, prefix=key.prefix, expires_at=ends, rotation_due_at=None)
        outbox.publish("key.expiring", news, partner=acme, livemode=True)
    for path in ("delivery", "endpoint", "inboundevent", "source"):
        with django_assert_max_num_queries(9):
            assert staff.get(f"/admin/webhooks/{path}/").status_code == 200
