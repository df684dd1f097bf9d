"""A page of staff's that was opened before a source, an endpoint or an event was changed undoes nothing."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from tests.api import Api
from tests.staff import STALE, seen
from tests.webhooks.conftest import Receiver, Register
from tests.webhooks.inbound_calls import FIRST
from tests.webhooks.test_admin import _audited, _receive
from webhooks import delivery, registering, tasks
from webhooks.addresses import why_refused
from webhooks.models import Endpoint, InboundEvent, Source

URL = "https://93.184.216.34/"


@pytest.fixture(autouse=True)
def _no_workers(hinted: list[str]) -> None:
    """Rows are worked on by the tests' own calls."""


def _post(staff: Client, address: str, **form: Any) -> str:
    """The page that is shown in the end."""
    answer = staff.post(address, form, follow=True)
    assert answer.status_code == 200
    return str(answer.content.decode())


def _trail() -> list[tuple[str, str]]:
    return list(_audited().order_by("id").values_list("action", "reason"))


def _refused(staff: Client, address: str, **form: Any) -> str:
    """The page of a refusal that left no trace."""
    before, history = _trail(), LogEntry.objects.count()
    page = _post(staff, address, **form)
    assert STALE in page
    assert (_trail(), LogEntry.objects.count()) == (before, history)
    return page


def test_a_source_that_was_made_less_strict_stays_so(staff: Client, source: Callable[..., Source]) -> None:
    url = f"/admin/webhooks/source/{source('qualia').pk}/change/"
    opened = seen(staff, url)
    _post(staff, url, seen=seen(staff, url), reason="its clock is wrong")
    page = _refused(staff, url, seen=opened, strict="on", reason="looked only")
    assert not Source.objects.get().strict
    assert opened in page, "pressing the button again changes nothing either"
    assert STALE not in _post(staff, url, seen=seen(staff, url), strict="on", reason="mended")
    assert Source.objects.get().strict


def test_a_source_that_nobody_changed_is_saved(staff: Client, source: Callable[..., Source]) -> None:
    made = source("qualia")
    url = f"/admin/webhooks/source/{made.pk}/change/"
    opened = seen(staff, url)
    # What the page does not offer for editing may change meanwhile.
    _post(staff, f"/admin/webhooks/source/{made.pk}/disable/", reason="it sends nonsense")
    assert STALE not in _post(staff, url, seen=opened, reason="its clock is wrong")
    assert [action for action, _ in _trail()] == ["webhook_source.disabled", "webhook_source.changed"]


@pytest.mark.parametrize(
    "change",
    [
        {"url": "https://93.184.216.34/new"},
        {"event_types": ["deed.*"]},
        {"description": "theirs"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_a_partner_changed_of_an_endpoint_stays(
    staff: Client, register: Register, api: Api, change: dict[str, Any]
) -> None:
    endpoint = register(URL, "key.*", "deed.*")
    url = f"/admin/webhooks/endpoint/{endpoint.pk}/edit/"
    form = {"url": URL, "event_types": ["key.*", "deed.*"], "description": "ours", "reason": "by phone"}
    form["seen"] = seen(staff, url)
    assert api.patch(f"/v2/webhook-endpoints/{endpoint.pk}", change).status_code == 200
    kept = Endpoint.objects.values().get()
    page = _refused(staff, url, **form)
    assert "ours" in page, "what was typed is not lost"
    assert Endpoint.objects.values().get() == kept
    form |= change | {"seen": seen(staff, url), "description": "ours"}
    assert STALE not in _post(staff, url, **form)
    assert Endpoint.objects.get().description == "ours"


def test_nor_is_what_another_page_changed_undone(staff: Client, register: Register) -> None:
    endpoint = register(URL)
    url = f"/admin/webhooks/endpoint/{endpoint.pk}/edit/"
    form = {"url": URL, "event_types": ["*"], "seen": seen(staff, url)}
    _post(staff, url, **form, description="hers", reason="hers")
    _refused(staff, url, **form, description="his", reason="his")
    assert Endpoint.objects.get().description == "hers"
    assert _trail() == [("webhook_endpoint.changed", "hers")]


def test_an_endpoint_that_nobody_changed_is_saved(staff: Client, register: Register, api: Api) -> None:
    endpoint = register(URL, "key.*", "deed.*")
    url = f"/admin/webhooks/endpoint/{endpoint.pk}/edit/"
    opened = seen(staff, url)
    # The same types in another order are no change; nor is on whether it is sent to for the form to say.
    for same in ({"event_types": ["deed.*", "key.*"]}, {"enabled": False}):
        assert api.patch(f"/v2/webhook-endpoints/{endpoint.pk}", same).status_code == 200
    form = {"url": URL, "event_types": ["key.*", "deed.*"], "description": "ours", "reason": "by phone"}
    assert STALE not in _post(staff, url, **form, seen=opened)
    endpoint.refresh_from_db()
    assert (endpoint.description, endpoint.enabled) == ("ours", False)


def test_a_page_of_an_endpoint_that_was_deleted_says_so(staff: Client, register: Register, api: Api) -> None:
    endpoint = register(URL)
    url = f"/admin/webhooks/endpoint/{endpoint.pk}/edit/"
    form = {"url": URL, "event_types": ["*"], "description": "ours", "reason": "x", "seen": seen(staff, url)}
    assert api.delete(f"/v2/webhook-endpoints/{endpoint.pk}").status_code == 204
    assert "This endpoint is deleted." in _post(staff, url, **form)
    assert Endpoint.objects.get().description == ""


def test_a_partners_new_secret_is_not_replaced_from_an_older_page(
    staff: Client, register: Register, api: Api
) -> None:
    endpoint = register(URL)
    url = f"/admin/webhooks/endpoint/{endpoint.pk}/rotate_secret/"
    opened = seen(staff, url)
    assert api.post(f"/v2/webhook-endpoints/{endpoint.pk}/rotate-secret", {}).status_code == 200
    kept = Endpoint.objects.get().secrets
    _refused(staff, url, reason="it leaked", seen=opened)
    assert Endpoint.objects.get().secrets == kept
    assert "whsec_" in _post(staff, url, reason="it leaked", seen=seen(staff, url))


def test_nor_that_of_a_source(staff: Client, source: Callable[..., Source]) -> None:
    url = f"/admin/webhooks/source/{source('qualia').pk}/rotate/"
    opened = seen(staff, url)
    _post(staff, url, reason="hers", seen=opened)
    kept = Source.objects.get().secrets
    _refused(staff, url, reason="his", seen=opened, is_leaked="on")
    assert Source.objects.get().secrets == kept


def test_an_endpoint_that_its_partner_disabled_meanwhile_is_not_enabled(
    staff: Client, register: Register, api: Api
) -> None:
    endpoint = register(URL)
    path, url = f"/v2/webhook-endpoints/{endpoint.pk}", f"/admin/webhooks/endpoint/{endpoint.pk}/enable/"
    Endpoint.objects.get().disable("failing", now=endpoint.created_at)
    opened = seen(staff, url)
    for enabled in (True, False):
        assert api.patch(path, {"enabled": enabled}).status_code == 200
    _refused(staff, url, reason="it is mended", seen=opened)
    assert Endpoint.objects.get().disabled_reason == "by_partner"


def test_a_source_that_was_disabled_for_another_reason_is_not_enabled(
    staff: Client, source: Callable[..., Source]
) -> None:
    url = f"/admin/webhooks/source/{source('qualia').pk}"
    _post(staff, f"{url}/disable/", reason="it sends nonsense")
    opened = seen(staff, f"{url}/enable/")
    _post(staff, f"{url}/enable/", reason="mended")
    _post(staff, f"{url}/disable/", reason="its secret leaked")
    _refused(staff, f"{url}/enable/", reason="mended", seen=opened)
    assert not Source.objects.get().enabled


def test_what_another_did_already_is_said(staff: Client, source: Callable[..., Source]) -> None:
    url = f"/admin/webhooks/source/{source('qualia').pk}/disable/"
    _post(staff, url, reason="hers")
    assert "The source was disabled before." in _post(staff, url, reason="his")
    assert _trail() == [("webhook_source.disabled", "hers")]


def test_an_endpoint_that_moved_is_not_deleted_for_the_address_it_had(
    staff: Client, register: Register, api: Api
) -> None:
    endpoint = register(URL)
    url = f"/admin/webhooks/endpoint/{endpoint.pk}/remove/"
    opened = seen(staff, url)
    api.patch(f"/v2/webhook-endpoints/{endpoint.pk}", {"url": "https://93.184.216.34/new"})
    _refused(staff, url, reason="the old address is gone", seen=opened)
    assert Endpoint.objects.get().deleted_at is None


def test_events_are_not_sent_twice_because_two_pages_were_open(
    clock: Any, staff: Client, receiver: Receiver, register: Register, tell: Any
) -> None:
    endpoint = register(receiver.url)
    tell()
    delivery.pump()
    url = f"/admin/webhooks/endpoint/{endpoint.pk}/replay/"
    form = {"since": "2026-11-24T07:00", "reason": "lost", "seen": seen(staff, url)}
    assert "sent once more: 1" in _post(staff, url, **form)
    delivery.pump()
    receiver.received.clear()
    _refused(staff, url, **form)
    delivery.pump()
    assert receiver.received == []


def test_a_correction_of_another_is_not_undone(staff: Client, source: Callable[..., Source]) -> None:
    source("qualia")
    _receive("secret", FIRST | {"deed_type": "lease"})
    tasks.process()
    event = InboundEvent.objects.get()
    url = f"/admin/webhooks/inboundevent/{event.pk}/correct/"
    opened = seen(staff, url)
    hers = json.dumps(FIRST | {"deed_type": "grand", "order_id": "H-1"})
    _post(staff, url, body=hers, reason="hers", seen=opened)
    tasks.process()
    event.refresh_from_db()
    assert event.status == "needs_attention"
    page = _refused(staff, url, body=json.dumps(FIRST), reason="his", seen=opened)
    assert "ALICE" in page, "what was typed is not lost"
    assert InboundEvent.objects.get().corrected_body == hers
    assert STALE not in _post(staff, url, body=json.dumps(FIRST), reason="both", seen=seen(staff, url))
    assert InboundEvent.objects.get().corrected_body == json.dumps(FIRST)


def test_a_partner_may_be_faster_than_the_look_up_of_a_name(
    staff: Client, register: Register, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = register(URL)
    path, url = f"/v2/webhook-endpoints/{endpoint.pk}", f"/admin/webhooks/endpoint/{endpoint.pk}/edit/"

    def slowly(address: str) -> Any:
        monkeypatch.setattr(registering, "why_refused", why_refused)
        assert api.patch(path, {"url": f"{URL}theirs"}).status_code == 200
        return why_refused(address)

    form = {"event_types": ["*"], "description": "ours", "reason": "by phone", "seen": seen(staff, url)}
    monkeypatch.setattr(registering, "why_refused", slowly)
    assert STALE in _post(staff, url, url=f"{URL}ours", **form)
    endpoint.refresh_from_db()
    assert (endpoint.url, endpoint.description) == (f"{URL}theirs", "")
    assert [(entry.actor_kind, entry.action) for entry in _audited()] == [("key", "webhook_endpoint.changed")]
