"""Events are written with what they tell of, for whom wants them, and carry ids and links only."""

import datetime as dt
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import transaction

from billing import signals as billing
from deeds import tasks as deed_tasks
from deeds.models import Deed
from keys import signals as keys
from keys.models import Partner
from tests.api import Api
from tests.conftest import MainApi
from webhooks.event_types import EVENT_TYPES, wanted, wants, why_no_pattern
from webhooks.models import Delivery, Endpoint, Event

Register = Callable[..., Endpoint]
Orders = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _no_workers(hinted: list[str]) -> None:
    """Rows are what is looked at here."""


def test_it_works(api: Api, order: Orders, main_api: MainApi, register: Register) -> None:
    endpoint = register("https://hooks.example.com/", "deed.*")
    deed = api.post("/v2/deeds", order(order_id="A-1")).json()
    assert not Event.objects.exists()
    deed_tasks.serve(deed["id"])
    event = Event.objects.get()
    assert (event.type, event.partner, event.livemode) == ("deed.completed", api.partner, True)
    assert event.data == {
        "deed": deed["id"],
        "order_id": "A-1",
        "deed_type": "grant",
        "status": "completed",
        "failure_code": None,
        "url": f"http://testserver/v2/deeds/{deed['id']}",
        "pdf_url": f"http://testserver/v2/deeds/{deed['id']}/pdf",
    }
    delivery = Delivery.objects.get()
    assert (delivery.endpoint, delivery.event, delivery.status) == (endpoint, event, "pending")


def test_no_event_holds_a_person_a_property_or_a_pdf(
    api: Api, order: Orders, main_api: MainApi, register: Register
) -> None:
    placed = order(order_id="A-1")
    deed_tasks.serve(api.post("/v2/deeds", placed).json()["id"])
    text = json.dumps(Event.objects.get().data)
    secrets = [
        placed["grantors"][0]["name"],
        placed["grantees"][0]["name"],
        placed["property"]["apn"],
        "%PDF",
    ]
    assert [secret for secret in secrets if secret in text] == []


def test_a_failed_and_a_cancelled_deed_are_told_of(api: Api, order: Orders, main_api: MainApi) -> None:
    failed = api.post("/v2/deeds", order(order_id="sandbox-400")).json()
    deed_tasks.serve(failed["id"])
    cancelled = api.post("/v2/deeds", order(order_id="A-2")).json()
    api.post(f"/v2/deeds/{cancelled['id']}/cancel")
    first, second = Event.objects.order_by("id")
    assert (first.type, first.data["failure_code"]) == ("deed.failed", "main_api_rejected")
    assert (second.type, second.data["pdf_url"]) == ("deed.cancelled", None)


def test_an_endpoint_gets_what_it_wants_of_its_own_partner_and_mode(
    api: Api, stranger: Api, order: Orders, register: Register
) -> None:
    wanting = register("https://a.example.com/", "deed.cancelled")
    register("https://b.example.com/", "invoice.*")
    register("https://c.example.com/", livemode=False)
    register("https://d.example.com/", partner=stranger.partner)
    disabled = register("https://e.example.com/")
    disabled.disable("by_partner", now=disabled.created_at)
    deed = api.post("/v2/deeds", order()).json()
    api.post(f"/v2/deeds/{deed['id']}/cancel")
    assert Event.objects.count() == 1
    assert [delivery.endpoint for delivery in Delivery.objects.all()] == [wanting]


def test_what_is_undone_is_not_told_of(api: Api, order: Orders, register: Register) -> None:
    register("https://a.example.com/")
    api.post("/v2/deeds", order())
    deed = Deed.objects.get()

    class Undone(Exception):
        pass

    def half_way() -> None:
        with transaction.atomic():
            keys.key_revoked.send(sender=type(api.key), key=api.key)
            deed.cancel(now=deed.created_at)
            assert Event.objects.exists()
            raise Undone

    with pytest.raises(Undone):
        half_way()
    assert not Event.objects.exists()
    assert not Delivery.objects.exists()


def test_one_message_goes_to_the_workers_after_the_commit(
    api: Api, register: Register, hinted: list[str], django_capture_on_commit_callbacks: Any
) -> None:
    register("https://a.example.com/")
    with django_capture_on_commit_callbacks(execute=True):
        for _ in range(20):
            keys.key_revoked.send(sender=type(api.key), key=api.key)
        assert hinted == []
    assert hinted == ["webhooks.tasks.deliver"]


def test_nobody_is_woken_for_what_nobody_wants(
    api: Api, hinted: list[str], django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        keys.key_revoked.send(sender=type(api.key), key=api.key)
    assert (Event.objects.count(), hinted) == (1, [])


@pytest.mark.parametrize("name", ["expiring", "rotated", "revoked"])
def test_news_of_keys(api: Api, name: str) -> None:
    signal = getattr(keys, f"key_{name}")
    signal.send(sender=type(api.key), key=api.key)
    event = Event.objects.get()
    assert event.type == f"key.{name}"
    more = {"rotation_due_at": None} if name == "expiring" else {}
    assert event.data == {"key": str(api.key.pk), "prefix": api.key.prefix, "expires_at": None, **more}
    assert api.key.secret_sha256 not in json.dumps(event.data)


def test_news_of_quotas(acme: Partner) -> None:
    facts = {"partner": acme, "quota": "deeds", "period_start": dt.datetime(2026, 11, 1, tzinfo=dt.UTC)}
    billing.quota_threshold_reached.send(sender=None, percent=80, **facts)
    billing.quota_exceeded.send(sender=None, percent=100, **facts)
    first, second = Event.objects.order_by("id")
    assert (first.type, second.type) == ("quota.threshold_reached", "quota.exceeded")
    url = "http://testserver/v2/usage"
    assert first.data == {"quota": "deeds", "percent": 80, "period_start": "2026-11-01", "url": url}


@pytest.mark.parametrize("name", ["finalized", "paid", "payment_failed"])
def test_news_of_invoices(acme: Partner, name: str) -> None:
    signal = getattr(billing, f"invoice_{name}")
    signal.send(sender=None, invoice=SimpleNamespace(pk="in_1", partner=acme))
    event = Event.objects.get()
    assert event.type == f"invoice.{name}"
    assert event.data == {"invoice": "in_1", "url": "http://testserver/v2/invoices/in_1"}


def test_patterns_cover_types() -> None:
    assert wants(["deed.*"], "deed.completed")
    assert wants(["*"], "invoice.paid")
    assert not wants(["deed.failed"], "deed.completed")
    assert not wants([], "deed.completed")
    assert wanted(Endpoint(event_types=["quota.*", "deed.failed"])) == [
        "deed.failed",
        "quota.threshold_reached",
        "quota.exceeded",
    ]
    assert set(wanted(Endpoint(event_types=["*"]))) == set(EVENT_TYPES)


@pytest.mark.parametrize(
    ("pattern", "near"), [("deed.complete", "deed.completed"), ("deeds.*", "deed.*"), ("", "known here")]
)
def test_an_unknown_pattern_gets_a_suggestion(pattern: str, near: str) -> None:
    assert near in str(why_no_pattern(pattern))
