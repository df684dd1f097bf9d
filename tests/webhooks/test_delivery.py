"""News always gets there: signed, retried, written down, and in nobody's way."""

import datetime as dt
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
import time_machine
from django.core import mail
from django.db import connection, transaction
from django.utils import timezone

from keys.models import Partner
from tests.webhooks.conftest import SECRET, Receiver, verified
from webhooks import claims, delivery, metrics, outbox, results, sending, signing, tasks, telling
from webhooks.event_types import KeyNews
from webhooks.models import Attempt, Delivery, Endpoint, Event

NOW = dt.datetime(2026, 11, 24, 8, tzinfo=dt.UTC)
Register = Callable[..., Endpoint]
Tell = Callable[[], Event]


@pytest.fixture(autouse=True)
def _no_workers(hinted: list[str]) -> None:
    """Deliveries are sent by the tests' own calls."""


@pytest.fixture
def tell(acme: Partner) -> Tell:
    """One event for all endpoints of Acme's."""

    def make() -> Event:
        news = KeyNews(key=acme.pk, prefix="dp_live_x", expires_at=None)
        return outbox.publish("key.revoked", news, partner=acme, livemode=True)

    return make


def _only() -> Delivery:
    return Delivery.objects.get()


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
    done = _only()
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
    done = _only()
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
        while _only().status == "pending":
            due = _only().next_attempt_at
            pauses.append((due - timezone.now()).total_seconds())
            clock.move_to(due - dt.timedelta(seconds=0.1))
            before = len(receiver.received)
            delivery.pump()
            assert len(receiver.received) in {before, 1}
            clock.move_to(due)
            delivery.pump()
    assert _only().status == "failed"
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
        clock.move_to(_only().next_attempt_at)
        delivery.pump()
    assert _only().status == "succeeded"
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
    pause = (_only().next_attempt_at - NOW).total_seconds()
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


def test_a_worker_that_dies_loses_nothing(receiver: Receiver, register: Register, tell: Tell) -> None:
    register(receiver.url)
    with time_machine.travel(NOW, tick=False) as clock:
        tell()
        [lost] = claims.claim(NOW, fast=1, slow=0)
        delivery.pump()
        assert receiver.received == []
        clock.shift(dt.timedelta(seconds=91))
        delivery.pump()
        assert (_only().status, _only().attempts) == ("succeeded", 2)
        # The one that was thought dead comes back late: its result is not written over the other's.
        late = sending.Outcome(NOW, 5, "timeout")
        results.record([results.Landed(lost, late)])
    assert (_only().status, _only().last_error) == ("succeeded", "")
    assert Attempt.objects.count() == 1


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
    outbox.resend(_only())
    delivery.pump()
    first, second = receiver.received
    verified(first)
    with pytest.raises(signing.BadSignature):
        verified(first, fresh)
    verified(second)
    verified(second, fresh)
    with time_machine.travel(timezone.now() + dt.timedelta(hours=25), tick=False):
        outbox.resend(_only())
        delivery.pump()
        verified(receiver.received[2], fresh)
        with pytest.raises(signing.BadSignature):
            verified(receiver.received[2], SECRET)


def test_a_deleted_endpoint_is_sent_nothing_more(receiver: Receiver, register: Register, tell: Tell) -> None:
    endpoint = register(receiver.url)
    tell()
    outbox.delete(endpoint)
    tell()
    delivery.pump()
    assert receiver.received == []
    assert _only().status == "cancelled"
    endpoint.refresh_from_db()
    assert not endpoint.enable()


def test_what_was_under_way_when_its_endpoint_was_disabled_does_not_wait_for_ever(
    receiver: Receiver, register: Register, tell: Tell
) -> None:
    endpoint = register(receiver.url)
    tell()
    receiver.answer = 500
    [claimed] = claims.claim(timezone.now(), fast=1, slow=0)
    outbox.disable(endpoint, "by_staff")
    results.record([results.Landed(claimed, sending.send(claimed.message))])
    assert metrics.oldest_open_seconds() > 0
    tasks.sweep()
    assert (_only().status, metrics.oldest_open_seconds()) == ("cancelled", 0)
    assert len(receiver.received) == 1


def test_an_address_that_moved_inside_is_not_sent_to(
    receiver: Receiver, register: Register, tell: Tell, settings: Any
) -> None:
    register(receiver.url)
    tell()
    settings.WEBHOOKS_ALLOW_PRIVATE_ADDRESSES = []
    delivery.pump()
    assert receiver.received == []
    assert (_only().status, _only().last_error) == ("pending", "address_refused")


def test_disable_enable_replay(receiver: Receiver, register: Register, tell: Tell) -> None:
    endpoint = register(receiver.url)
    with time_machine.travel(NOW, tick=False) as clock:
        early = tell()
        delivery.pump()
        clock.shift(dt.timedelta(hours=1))
        since = timezone.now()
        waiting = tell()
        outbox.disable(endpoint, "by_staff")
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
    assert _only().last_response == "��" + "a" * 1022


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
