"""What an endpoint's owner does while messages are on their way: rotate, delete, disable, replay."""

import datetime as dt
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from tests.webhooks.conftest import NOW, SECRET, Receiver, Register, Tell, only, verified
from webhooks import claims, delivery, metrics, outbox, results, sending, signing, stopping, tasks
from webhooks.models import Delivery, Event

pytestmark = pytest.mark.usefixtures("hinted")


def test_a_secret_that_is_rotated_between_attempts_signs_the_next(
    receiver: Receiver, register: Register, tell: Tell
) -> None:
    receiver.answer = 500
    endpoint = register(receiver.url)
    tell()
    delivery.pump()
    fresh = signing.new_secret()
    endpoint.give_secret(fresh, now=timezone.now(), overlap=dt.timedelta(hours=24))
    endpoint.save()
    outbox.resend(only())
    delivery.pump()
    first, second = receiver.received
    verified(first)
    with pytest.raises(signing.BadSignature):
        verified(first, fresh)
    verified(second)
    verified(second, fresh)
    with time_machine.travel(timezone.now() + dt.timedelta(hours=25), tick=False):
        outbox.resend(only())
        delivery.pump()
        verified(receiver.received[2], fresh)
        with pytest.raises(signing.BadSignature):
            verified(receiver.received[2], SECRET)


def test_a_deleted_endpoint_is_sent_nothing_more(receiver: Receiver, register: Register, tell: Tell) -> None:
    endpoint = register(receiver.url)
    tell()
    stopping.delete(endpoint)
    tell()
    delivery.pump()
    assert receiver.received == []
    assert only().status == "cancelled"
    endpoint.refresh_from_db()
    assert not endpoint.enable()


def test_what_was_under_way_when_its_endpoint_was_disabled_does_not_wait_for_ever(
    receiver: Receiver, register: Register, tell: Tell
) -> None:
    endpoint = register(receiver.url)
    tell()
    receiver.answer = 500
    [claimed] = claims.claim(timezone.now(), fast=1, slow=0)
    stopping.disable(endpoint, "by_staff")
    results.record([results.Landed(claimed, sending.send(claimed.message))])
    assert metrics.oldest_open_seconds() > 0
    tasks.sweep()
    assert (only().status, metrics.oldest_open_seconds()) == ("cancelled", 0)
    assert len(receiver.received) == 1


def test_an_address_that_moved_inside_is_not_sent_to(
    receiver: Receiver, register: Register, tell: Tell, settings: Any
) -> None:
    register(receiver.url)
    tell()
    settings.WEBHOOKS_ALLOW_PRIVATE_ADDRESSES = []
    delivery.pump()
    assert receiver.received == []
    assert (only().status, only().last_error) == ("pending", "address_refused")


def test_disable_enable_replay(receiver: Receiver, register: Register, tell: Tell) -> None:
    endpoint = register(receiver.url)
    with time_machine.travel(NOW, tick=False) as clock:
        early = tell()
        delivery.pump()
        clock.shift(dt.timedelta(hours=1))
        since = timezone.now()
        waiting = tell()
        stopping.disable(endpoint, "by_staff")
        missed = tell()
        delivery.pump()
        endpoint.enable()
        endpoint.refresh_from_db()
        delivery.pump()
        assert [one.headers["webhook-id"] for one in receiver.received] == [str(early.pk)]
        queued = outbox.replay(endpoint, since=since, undelivered_only=True)
        delivery.pump()
    ids = [one.headers["webhook-id"] for one in receiver.received]
    disabled = Event.objects.get(type="webhook.endpoint_disabled")
    assert queued == 3
    assert sorted(ids[1:]) == sorted(str(event.pk) for event in (waiting, missed, disabled))
    assert ids.count(str(early.pk)) == 1


def test_replay_sends_again_what_was_received_unless_told_otherwise(
    receiver: Receiver, register: Register, tell: Tell
) -> None:
    endpoint = register(receiver.url)
    event = tell()
    delivery.pump()
    since = event.created_at
    assert outbox.replay(endpoint, since=since, undelivered_only=True) == 0
    assert outbox.replay(endpoint, since=since, undelivered_only=False) == 1
    assert outbox.replay(endpoint, since=since + dt.timedelta(seconds=1), undelivered_only=False) == 0
    delivery.pump()
    assert [one.headers["webhook-id"] for one in receiver.received] == [str(event.pk)] * 2
    assert Delivery.objects.count() == 1
