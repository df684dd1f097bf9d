"""News gets there: signed, retried, written down; and an endpoint that is gone is disabled."""

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pytest
import time_machine
from django.core import mail
from django.utils import timezone

from keys.models import Partner
from tests.webhooks.conftest import NOW, Receiver, Register, Tell, only, verified
from webhooks import delivery, telling
from webhooks.models import Attempt, Endpoint, Event

pytestmark = pytest.mark.usefixtures("hinted")


def test_it_works(receiver: Receiver, register: Register, tell: Tell) -> None:
    register(receiver.url)
    event = tell()
    delivery.pump()
    [received] = receiver.received
    verified(received)
    assert received.headers["webhook-id"] == str(event.pk)
    body = json.loads(received.body)
    assert body == {
        "id": str(event.pk),
        "object": "event",
        "type": "key.revoked",
        "livemode": True,
        "created_at": event.created_at.isoformat().replace("+00:00", "Z"),
        "data": event.data,
    }
    done = only()
    assert (done.status, done.attempts, done.last_status, done.last_response) == ("succeeded", 1, 204, "ok")
    attempt = Attempt.objects.get()
    assert (attempt.number, attempt.status_code, attempt.error) == (1, 204, "")
    delivery.pump()
    assert len(receiver.received) == 1


@pytest.mark.parametrize("status", [199, 300, 302, 304, 400, 401, 404, 500, 503])
def test_only_2xx_is_success(receiver: Receiver, register: Register, tell: Tell, status: int) -> None:
    receiver.answer = status if status >= 200 else 500
    register(receiver.url)
    tell()
    delivery.pump()
    done = only()
    assert (done.status, done.attempts) == ("pending", 1)
    assert done.next_attempt_at > timezone.now()
    assert len(receiver.received) == 1


def test_a_failing_receiver_is_tried_on_schedule_and_then_left(
    receiver: Receiver, register: Register, tell: Tell, settings: Any
) -> None:
    receiver.answer = 500
    register(receiver.url)
    pauses = []
    with time_machine.travel(NOW, tick=False) as clock:
        tell()
        while only().status == "pending":
            due = only().next_attempt_at
            pauses.append((due - timezone.now()).total_seconds())
            clock.move_to(due - dt.timedelta(seconds=0.1))
            before = len(receiver.received)
            delivery.pump()
            assert len(receiver.received) in {before, 1}
            clock.move_to(due)
            delivery.pump()
    assert only().status == "failed"
    schedule = settings.WEBHOOKS_SCHEDULE_SECONDS
    assert schedule == [0, 5, 300, 1800, 7200, 18000, 36000, 36000]
    assert len(receiver.received) == len(schedule) == Attempt.objects.count()
    for pause, planned in zip(pauses, schedule, strict=True):
        assert 0.8 * planned <= pause <= 1.2 * planned
    assert (
        len({round(pause / planned, 4) for pause, planned in zip(pauses[1:], schedule[1:], strict=True)}) > 1
    )
    ids = {received.headers["webhook-id"] for received in receiver.received}
    bodies = {received.body for received in receiver.received}
    assert (len(ids), len(bodies)) == (1, 1)


def test_a_receiver_that_recovers_gets_it(receiver: Receiver, register: Register, tell: Tell) -> None:
    receiver.answer = 500
    endpoint = register(receiver.url)
    with time_machine.travel(NOW, tick=False) as clock:
        tell()
        delivery.pump()
        endpoint.refresh_from_db()
        assert endpoint.failing_since == NOW
        receiver.answer = 200
        clock.move_to(only().next_attempt_at)
        delivery.pump()
    assert only().status == "succeeded"
    assert not Endpoint.objects.exclude(failing_since=None).exists()


@pytest.mark.parametrize(
    ("status", "header", "seconds"),
    [
        (429, "120", 120),
        (503, "Tue, 24 Nov 2026 08:10:00 GMT", 600),
        (429, "999999999", 24 * 3600),
        (429, "Mon, 23 Nov 2026 08:00:00 GMT", 6),
        (429, "soon", 6),
        (503, "-5", 6),
        (500, "120", 6),
    ],
)
def test_retry_after_is_respected_where_it_may_be_sent(
    receiver: Receiver, register: Register, tell: Tell, status: int, header: str, seconds: int
) -> None:
    def answer(handler: Any) -> None:
        handler.send_response(status)
        handler.send_header("Retry-After", header)
        handler.end_headers()

    receiver.answer = answer
    register(receiver.url)
    with time_machine.travel(NOW, tick=False):
        tell()
        delivery.pump()
    pause = (only().next_attempt_at - NOW).total_seconds()
    assert pause == seconds if seconds > 6 else 4 <= pause <= 6


def test_gone_disables_at_once(
    receiver: Receiver, receivers: Callable[[], Receiver], register: Register, tell: Tell
) -> None:
    receiver.answer = 410
    other = receivers()
    endpoint, _ = register(receiver.url), register(other.url)
    tell()
    tell()
    delivery.pump()
    endpoint.refresh_from_db()
    assert (endpoint.enabled, endpoint.disabled_reason) == (False, "gone")
    assert not endpoint.deliveries.filter(status="pending", next_attempt_at__lte=timezone.now()).exists()
    delivery.pump()
    told = [json.loads(received.body) for received in other.received]
    assert told[-1]["type"] == "webhook.endpoint_disabled"
    assert told[-1]["data"]["endpoint"] == str(endpoint.pk)
    assert len(receiver.received) <= 2


def test_five_days_of_failure_disable_and_are_told_by_mail_and_event(
    receiver: Receiver, register: Register, tell: Tell, acme: Partner, settings: Any
) -> None:
    settings.STAFF_EMAILS = ["staff@example.com"]
    acme.contact_email = "it@acme.example.com"
    acme.save()
    receiver.answer = 500
    endpoint = register(f"{receiver.url}?token=hidden")
    with time_machine.travel(NOW, tick=False) as clock:
        for day in range(6):
            clock.move_to(NOW + dt.timedelta(days=day))
            endpoint.refresh_from_db()
            assert endpoint.enabled, f"day {day}"
            tell()
            delivery.pump()
    endpoint.refresh_from_db()
    assert (endpoint.enabled, endpoint.disabled_reason) == (False, "failing")
    assert not endpoint.deliveries.open().exists()
    assert Event.objects.get(type="webhook.endpoint_disabled").data["reason"] == "failing"
    telling.tell_of_disabled()
    telling.tell_of_disabled()
    [message] = mail.outbox
    assert message.recipients() == ["it@acme.example.com", "staff@example.com"]
    assert str(endpoint.pk) in message.body
    assert "hidden" not in message.body
    assert "5 days" in message.body


def test_a_long_silence_between_two_failures_is_no_outage(
    receiver: Receiver, register: Register, tell: Tell, settings: Any
) -> None:
    settings.WEBHOOKS_SCHEDULE_SECONDS = [0]
    receiver.answer = 500
    endpoint = register(receiver.url)
    with time_machine.travel(NOW, tick=False) as clock:
        for day in (0, 30):
            clock.move_to(NOW + dt.timedelta(days=day))
            tell()
            delivery.pump()
    endpoint.refresh_from_db()
    assert endpoint.enabled
    assert endpoint.failing_since == NOW + dt.timedelta(days=30)


def test_the_answers_body_is_kept_to_a_kilobyte_and_readable(
    receiver: Receiver, register: Register, tell: Tell
) -> None:
    def answer(handler: Any) -> None:
        handler.send_response(500)
        handler.end_headers()
        handler.wfile.write(b"\x00\xff" + b"a" * 5000)

    receiver.answer = answer
    register(receiver.url)
    tell()
    delivery.pump()
    assert only().last_response == "��" + "a" * 1022
