"""Nobody waits for another: slow endpoints, shares, pumps, and workers that die."""

import datetime as dt
import threading
from typing import Any

import pytest
import time_machine
from django.db import connection, transaction
from django.utils import timezone

from keys.models import Partner
from tests.webhooks.conftest import NOW, Receiver, Register, Tell, only
from webhooks import claims, delivery, results, sending, tasks
from webhooks.models import Attempt, Delivery, Event

pytestmark = pytest.mark.usefixtures("hinted")


def test_what_hangs_takes_the_limit_and_one_place(
    receiver: Receiver, register: Register, tell: Tell, settings: Any
) -> None:
    settings.WEBHOOKS_TIMEOUT_SECONDS = 0.3
    released = threading.Event()

    def hang(handler: Any) -> None:
        released.wait(5)

    receiver.answer = hang
    endpoint = register(receiver.url, last_success_at=None)
    tell()
    tell()
    delivery.pump(seconds=0.2)
    released.set()
    assert [row.last_error for row in Delivery.objects.order_by("id")] == ["timeout", ""]
    assert len(receiver.received) == 1
    endpoint.refresh_from_db()
    assert endpoint.places_at(timezone.now()) == 1


def test_an_endpoint_that_was_slow_has_one_place_out_of_another_share(
    receiver: Receiver, register: Register, tell: Tell
) -> None:
    later = timezone.now() + dt.timedelta(minutes=5)
    sound, slow = register(receiver.url), register(f"{receiver.url}/slow", slow_until=later)
    for _ in range(10):
        tell()
    claimed = claims.claim(timezone.now(), fast=100, slow=0)
    assert [one.endpoint for one in claimed] == [sound] * 4
    claimed = claims.claim(timezone.now(), fast=100, slow=100)
    assert [one.endpoint for one in claimed] == [slow]
    assert claims.claim(timezone.now(), fast=100, slow=100) == []


def test_places_are_shared_out_round_by_round(receiver: Receiver, register: Register, tell: Tell) -> None:
    for number in range(3):
        register(f"{receiver.url}/{number}")
    for _ in range(10):
        tell()
    claimed = claims.claim(timezone.now(), fast=6, slow=0)
    per_endpoint = [one.endpoint.pk for one in claimed]
    assert sorted(per_endpoint.count(pk) for pk in set(per_endpoint)) == [2, 2, 2]


def test_a_worker_that_dies_loses_nothing(receiver: Receiver, register: Register, tell: Tell) -> None:
    register(receiver.url)
    with time_machine.travel(NOW, tick=False) as clock:
        tell()
        [lost] = claims.claim(NOW, fast=1, slow=0)
        delivery.pump()
        assert receiver.received == []
        clock.shift(dt.timedelta(seconds=91))
        delivery.pump()
        assert (only().status, only().attempts) == ("succeeded", 2)
        # The one that was thought dead comes back late: its result is not written over the other's.
        late = sending.Outcome(NOW, 5, "timeout")
        results.record([results.Landed(lost, late)])
    assert (only().status, only().last_error) == ("succeeded", "")
    assert Attempt.objects.count() == 1


def test_only_so_many_pumps_run_and_a_further_one_does_nothing(
    receiver: Receiver, register: Register, tell: Tell, settings: Any
) -> None:
    settings.WEBHOOKS_PUMPS = 0
    register(receiver.url)
    tell()
    assert delivery.pump() == {}
    assert receiver.received == []
    settings.WEBHOOKS_PUMPS = 1
    tasks.sweep()
    assert len(receiver.received) == 1


def test_a_pump_whose_time_is_up_hands_over(
    receiver: Receiver, register: Register, tell: Tell, hinted: list[str]
) -> None:
    register(receiver.url)
    tell()
    delivery.pump(seconds=0)
    assert (receiver.received, hinted) == ([], ["webhooks.tasks.deliver"])


def test_a_claim_reads_no_more_the_more_waits(receiver: Receiver, register: Register, acme: Partner) -> None:
    endpoints = [register(receiver.url), register(receiver.url)]
    events = Event.objects.bulk_create(
        Event(type="key.revoked", partner=acme, livemode=True, data={}) for _ in range(1000)
    )
    Delivery.objects.bulk_create(
        Delivery(endpoint=endpoint, event=event, partner=acme, livemode=True)
        for endpoint in endpoints
        for event in events
    )
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("ANALYZE webhook_deliveries, webhook_endpoints")
        before = _rows_read(cursor)
        assert len(claims.claim(timezone.now(), fast=4, slow=0)) == 4
        assert claims.is_anything_claimable(timezone.now())
        assert _rows_read(cursor) - before < 50


def _rows_read(cursor: Any) -> int:
    """Of deliveries, by this transaction."""
    cursor.execute(
        "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables"
        " WHERE relname = 'webhook_deliveries'"
    )
    return int(cursor.fetchone()[0])
