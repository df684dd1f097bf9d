"""Events, deliveries and attempts are kept for a while once they are settled, and then removed."""

import datetime as dt
import threading
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from keys.models import Partner
from tests.webhooks.test_admin import Register
from webhooks import metrics, outbox, retention, tasks
from webhooks.models import Attempt, Delivery, Endpoint, Event

OLD = dt.timedelta(days=91)


@pytest.fixture(autouse=True)
def _no_workers(hinted: list[str]) -> None:
    """Rows are worked on by the tests' own calls."""


@pytest.fixture
def endpoint(register: Register) -> Endpoint:
    return register("https://a.example.com/")


def _sent(endpoint: Endpoint, status: str = "succeeded", age: dt.timedelta = OLD, **fields: Any) -> Delivery:
    """An event with its delivery and two attempts, all of the same age."""
    at = timezone.now() - age
    event = _event(endpoint.partner, at)
    is_settled = status not in {"pending", "sending"}
    delivery = Delivery.objects.create(
        endpoint=endpoint,
        event=event,
        partner=endpoint.partner,
        livemode=True,
        status=status,
        created_at=at,
        settled_at=at if is_settled else None,
        **fields,
    )
    for number in (1, 2):
        Attempt.objects.create(delivery=delivery, at=at, number=number, latency_ms=1)
    return delivery


def _event(partner: Partner, at: dt.datetime, *, livemode: bool = True) -> Event:
    return Event.objects.create(
        type="key.revoked", partner=partner, livemode=livemode, data={}, created_at=at
    )


def _left() -> tuple[int, int, int]:
    return Event.objects.count(), Delivery.objects.count(), Attempt.objects.count()


def _counted(what: str) -> float:
    return float(metrics.forgotten.labels(what)._value.get())


def test_it_works(endpoint: Endpoint, acme: Partner) -> None:
    before = _counted("attempts")
    for status in ("succeeded", "failed", "cancelled"):
        _sent(endpoint, status)
    # Nobody listened to these.
    for livemode in (True, False):
        _event(acme, timezone.now() - OLD, livemode=livemode)
    young = _sent(endpoint, age=dt.timedelta(days=89))
    for _ in range(2):
        tasks.forget()
        assert _left() == (1, 1, 2)
    assert Delivery.objects.get() == young
    assert _counted("attempts") - before == 6


def test_what_is_not_settled_stays_with_its_event(endpoint: Endpoint) -> None:
    _sent(endpoint, "pending")
    now = timezone.now()
    _sent(endpoint, "sending", lease=endpoint.pk, lease_expires_at=now)
    tasks.forget()
    assert _left() == (2, 2, 4)


def test_an_event_stays_for_its_youngest_delivery(endpoint: Endpoint, register: Register) -> None:
    delivery = _sent(endpoint)
    other = register("https://b.example.com/")
    late = Delivery.objects.create(
        endpoint=other,
        event=delivery.event,
        partner=other.partner,
        livemode=True,
        status="succeeded",
        settled_at=timezone.now(),
    )
    tasks.forget()
    assert _left() == (1, 2, 2)
    Delivery.objects.filter(pk=late.pk).update(settled_at=timezone.now() - OLD)
    tasks.forget()
    assert _left() == (0, 0, 0)


def test_one_that_is_sent_again_stays(endpoint: Endpoint) -> None:
    delivery = _sent(endpoint)
    outbox.resend(Delivery.objects.get())
    tasks.forget()
    delivery.refresh_from_db()
    assert delivery.status == "pending"
    assert _left() == (1, 1, 2)


def test_with_zero_days_all_is_kept(endpoint: Endpoint, settings: Any) -> None:
    settings.WEBHOOKS_KEPT_DAYS = 0
    _sent(endpoint, age=dt.timedelta(days=9999))
    tasks.forget()
    assert _left() == (1, 1, 2)


def test_many_go_in_batches_of_every_partner(
    endpoint: Endpoint, register: Register, monkeypatch: Any, django_assert_max_num_queries: Any
) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)
    stranger = register("https://c.example.com/", partner=Partner.objects.create(name="Pacific Escrow"))
    for _ in range(7):
        _sent(endpoint)
        _sent(stranger)
    blocked = _sent(endpoint, "pending", age=OLD * 2)
    tasks.forget()
    assert Event.objects.get() == blocked.event


def test_it_stops_when_its_time_is_up(endpoint: Endpoint, monkeypatch: Any) -> None:
    monkeypatch.setattr(retention, "_LONGEST_SECONDS", -1)
    _sent(endpoint)
    tasks.forget()
    assert _left() == (1, 1, 2)


@pytest.mark.django_db(transaction=True)
def test_two_runs_at_once_remove_everything_once(endpoint: Endpoint, monkeypatch: Any) -> None:
    monkeypatch.setattr(retention, "BATCH", 5)
    for _ in range(30):
        _sent(endpoint)
    before = _counted("events")
    failed: list[BaseException] = []

    def run() -> None:
        try:
            retention.forget()
        except BaseException as error:
            failed.append(error)
            raise
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    retention.forget()
    assert failed == []
    assert _left() == (0, 0, 0)
    assert _counted("events") - before == 30
