"""What is remembered of an endpoint's answers, and of which URL; and who may switch it on again."""

import datetime as dt
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.conf import settings
from django.core import mail
from django.db import connection, transaction
from django.utils import timezone

from keys.audit import Actor
from keys.models import AuditEntry, Partner
from tests.api import Api, errors_of
from tests.webhooks.conftest import Receiver, Register, Tell, only
from webhooks import (
    claims,
    delivery,
    metrics,
    outbound_http,
    registering,
    results,
    sending,
    stopping,
    telling,
)
from webhooks.models import Attempt, Delivery, Endpoint
from webhooks.outbound_http import NoAnswer
from webhooks.sending import Outcome

pytestmark = pytest.mark.usefixtures("hinted")


def _path(endpoint: Endpoint) -> str:
    return f"/v2/webhook-endpoints/{endpoint.pk}"


def _land(outcome_of: dict[str, Any]) -> None:
    """What came of the one message that is due."""
    [claimed] = claims.claim(timezone.now(), fast=1, slow=1)
    results.record([results.Landed(claimed, Outcome(at=timezone.now(), **outcome_of))])


def test_who_answers_slowly_is_slow_whatever_it_answers(register: Register, tell: Tell) -> None:
    endpoint = register("https://hooks.example.com/")
    for latency_ms, is_slow in ((metrics.SLOW_MS - 1, False), (metrics.SLOW_MS, True)):
        tell()
        _land({"latency_ms": latency_ms, "error": "", "status": 204})
        endpoint.refresh_from_db()
        assert (endpoint.failing_since, endpoint.is_slow_at(timezone.now())) == (None, is_slow)
    assert endpoint.places_at(timezone.now()) == 1


def test_another_url_begins_with_a_clean_record(api: Api, register: Register) -> None:
    past = timezone.now() - dt.timedelta(days=4)
    endpoint = register(
        "https://8.8.8.8/a",
        failing_since=past,
        last_failure_at=past,
        slow_until=timezone.now() + dt.timedelta(1),
    )
    assert api.patch(_path(endpoint), {"url": "https://8.8.8.8/a", "description": "x"}).status_code == 200
    endpoint.refresh_from_db()
    assert endpoint.failing_since == past
    assert api.patch(_path(endpoint), {"url": "https://8.8.8.8/b"}).json()["failing_since"] is None
    endpoint.refresh_from_db()
    assert (endpoint.last_success_at, endpoint.last_failure_at, endpoint.slow_until) == (None, None, None)


@pytest.mark.parametrize(
    "outcome",
    [
        {"latency_ms": 9000, "error": "http_410", "status": 410},
        {"latency_ms": 9000, "error": "timeout"},
        {"latency_ms": 9000, "error": "", "status": 200},
    ],
)
def test_what_an_earlier_url_answers_says_nothing_of_the_next(
    api: Api, register: Register, tell: Tell, outcome: dict[str, Any]
) -> None:
    endpoint = register("https://8.8.8.8/a")
    tell()
    [claimed] = claims.claim(timezone.now(), fast=1, slow=1)
    assert api.patch(_path(endpoint), {"url": "https://8.8.8.8/b"}).status_code == 200
    results.record([results.Landed(claimed, Outcome(at=timezone.now(), **outcome))])
    endpoint.refresh_from_db()
    assert endpoint.enabled
    assert (endpoint.failing_since, endpoint.slow_until, endpoint.last_success_at) == (None, None, None)
    assert only().last_status == outcome.get("status")


def test_enabling_clears_the_record_also_of_one_that_is_enabled(api: Api, register: Register) -> None:
    past = timezone.now() - dt.timedelta(days=4)
    endpoint = register("https://8.8.8.8/", failing_since=past, last_failure_at=past)
    assert api.patch(_path(endpoint), {"enabled": True}).json()["failing_since"] is None


def test_what_staff_have_disabled_only_staff_enable(api: Api, register: Register, acme: Partner) -> None:
    endpoint = register("https://8.8.8.8/")
    staff = Actor("staff", "someone")
    assert registering.set_enabled(staff, endpoint, enabled=False, reason="it hangs")
    answer = api.patch(_path(endpoint), {"enabled": True, "description": "mine"})
    assert (answer.status_code, answer.json()["code"]) == (409, "endpoint_disabled_by_staff")
    endpoint.refresh_from_db()
    assert (endpoint.enabled, endpoint.description) == (False, "")
    assert registering.set_enabled(staff, endpoint, enabled=True, reason="mended")
    for reason in ("by_partner", "failing", "gone"):
        stopping.disable(endpoint, reason)
        assert api.patch(_path(endpoint), {"enabled": True}).json()["enabled"] is True


def test_a_changed_query_is_audited_without_it(api: Api, register: Register) -> None:
    endpoint = register("https://8.8.8.8/a?token=first")
    assert api.patch(_path(endpoint), {"url": "https://8.8.8.8/a?token=other"}).status_code == 200
    entry = AuditEntry.objects.get(action="webhook_endpoint.changed")
    assert entry.after["query_changed"] is True
    assert "token" not in repr((entry.before, entry.after))
    assert Endpoint.objects.get().url.endswith("other")


@pytest.mark.parametrize("name", ["url", "event_types", "description", "enabled"])
def test_null_is_no_value(api: Api, register: Register, name: str) -> None:
    endpoint = register("https://8.8.8.8/")
    assert errors_of(api.patch(_path(endpoint), {name: None})).keys() == {f"/{name}"}


def test_a_type_named_twice_is_kept_once(api: Api, register: Register) -> None:
    twice = {"event_types": ["deed.*", "key.revoked", "deed.*"]}
    answer = api.patch(_path(register("https://8.8.8.8/")), twice)
    assert answer.json()["event_types"] == ["deed.*", "key.revoked"]


def test_many_slow_endpoints_are_not_all_that_is_looked_at(
    register: Register, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "_ENDPOINTS_LOOKED_AT", 2)
    later = timezone.now() + dt.timedelta(minutes=5)
    for number in range(3):
        register(f"https://slow.example.com/{number}", slow_until=later)
    tell()
    sound = register("https://hooks.example.com/")
    tell()
    assert {one.endpoint for one in claims.claim(timezone.now(), fast=4, slow=0)} == {sound}


def test_a_worker_that_lost_its_lease_has_no_say_in_how_it_ends(register: Register, tell: Tell) -> None:
    """It stalled; the delivery is another worker's by then."""
    endpoint = register("https://hooks.example.com/")
    tell()
    now = timezone.now()
    (late,) = claims.claim(now, fast=1, slow=1)
    after = now + dt.timedelta(seconds=settings.WEBHOOKS_LEASE_SECONDS)
    assert claims.take_back(after) == 1
    (ours,) = claims.claim(after, fast=1, slow=1)
    results.record([results.Landed(late, Outcome(at=now, latency_ms=5, error="http_500", status=500))])
    assert (only().status, only().lease) == ("sending", ours.lease)
    assert not Attempt.objects.exists()
    endpoint.refresh_from_db()
    assert endpoint.failing_since is None
    results.record([results.Landed(ours, Outcome(at=after, latency_ms=5, error="", status=204))])
    assert (only().status, Attempt.objects.get().number) == ("succeeded", 2)


def test_one_success_outweighs_what_else_an_endpoint_said(register: Register, tell: Tell) -> None:
    endpoint = register("https://hooks.example.com/")
    for _ in range(2):
        tell()
    now = timezone.now()
    said = [
        Outcome(at=now, latency_ms=5, error="http_410", status=410),
        Outcome(at=now, latency_ms=5, error="", status=204),
    ]
    claimed = claims.claim(now, fast=8, slow=8)
    results.record([results.Landed(one, outcome) for one, outcome in zip(claimed, said, strict=True)])
    endpoint.refresh_from_db()
    assert (endpoint.enabled, endpoint.failing_since) == (True, None)


def test_a_wish_for_a_short_pause_shortens_none() -> None:
    now = timezone.now()
    asked = Outcome(at=now, latency_ms=5, error="http_503", status=503, retry_after=dt.timedelta(seconds=1))
    again = results.next_attempt(3, asked, now)
    assert again is not None
    assert again - now >= dt.timedelta(seconds=settings.WEBHOOKS_SCHEDULE_SECONDS[3] * 0.8)


def test_of_an_endpoints_deliveries_those_due_are_sent_the_oldest_first(
    register: Register, tell: Tell
) -> None:
    register("https://hooks.example.com/")
    now = timezone.now()
    deliveries = [Delivery.objects.get(event=tell()) for _ in range(3)]
    for one, minutes in zip(deliveries, (-1, 5, -2), strict=True):
        due = now + dt.timedelta(minutes=minutes)
        Delivery.objects.filter(pk=one.pk).update(next_attempt_at=due)
    first = [one.id for one in claims.claim(now, fast=1, slow=0)]
    assert first == [deliveries[2].pk]
    assert [one.id for one in claims.claim(now, fast=8, slow=8)] == [deliveries[0].pk]


def test_the_endpoint_that_waits_longest_is_served_first(register: Register, tell: Tell) -> None:
    endpoints = [register(f"https://hooks.example.com/{number}") for number in range(3)]
    tell()
    now = timezone.now()
    for one, minutes in zip(endpoints, (2, 3, 1), strict=True):
        due = now - dt.timedelta(minutes=minutes)
        Delivery.objects.filter(endpoint=one).update(next_attempt_at=due)
    claimed = [one.endpoint for _ in range(3) for one in claims.claim(now, fast=1, slow=1)]
    assert claimed == [endpoints[1], endpoints[0], endpoints[2]]


def test_places_are_shared_among_endpoints(register: Register, tell: Tell) -> None:
    """None waits until all that is due to another has been sent."""
    endpoints = [register(f"https://hooks.example.com/{number}") for number in range(2)]
    for _ in range(3):
        tell()
    claimed = claims.claim(timezone.now(), fast=2, slow=2)
    assert {one.endpoint for one in claimed} == set(endpoints)


def test_what_waits_for_a_disabled_endpoint_is_not_sent(register: Register, tell: Tell) -> None:
    """As of an event that was being written while its endpoint was disabled."""
    endpoint = register("https://hooks.example.com/")
    tell()
    assert endpoint.disable(Endpoint.Reason.PARTNER, now=timezone.now())
    assert Delivery.objects.filter(status="pending").count() == 1
    assert claims.claim(timezone.now(), fast=1, slow=1) == []


@pytest.mark.django_db(transaction=True)
def test_an_endpoint_that_another_worker_claims_for_is_passed_over(register: Register, tell: Tell) -> None:
    """Both would count the same requests under way, and go beyond its bound together."""
    held, free = register("https://held.example.com/"), register("https://free.example.com/")
    tell()

    def claim() -> list[Endpoint]:
        try:
            return [one.endpoint for one in claims.claim(timezone.now(), fast=8, slow=8)]
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as other, transaction.atomic():
        Endpoint.objects.select_for_update(no_key=True).get(pk=held.pk)
        assert other.submit(claim).result(10) == [free]
    assert [one.endpoint for one in claims.claim(timezone.now(), fast=8, slow=8)] == [held]


def test_a_fault_of_ours_in_one_flight_loses_no_other(
    receiver: Receiver, register: Register, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sending.send

    def send(message: sending.Message) -> Outcome:
        if "broken" in message.url:
            raise RuntimeError
        return real(message)

    monkeypatch.setattr(delivery, "send", send)
    broken, sound = register(f"{receiver.url}/broken"), register(receiver.url)
    tell()
    assert delivery.pump() == {"received": 1, "not_received": 1}
    by_endpoint = {row.endpoint_id: (row.status, row.last_error) for row in Delivery.objects.all()}
    assert by_endpoint == {broken.pk: ("pending", "internal_error"), sound.pk: ("succeeded", "")}
    broken.refresh_from_db()
    assert broken.failing_since is None


def test_a_machine_without_threads_left_is_a_name_not_resolved_in_time(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(NoAnswer, match="dns_timeout"):
            outbound_http.post(receiver.url, b"", {})
    # Its place was given back.
    assert outbound_http.post(receiver.url, b"", {}).status == 204


def test_a_mail_server_that_is_away_is_asked_again(register: Register, acme: Partner, settings: Any) -> None:
    acme.contact_email = "it@acme.example.com"
    acme.save()
    endpoint = register("https://hooks.example.com/")
    stopping.disable(endpoint, "failing")
    local = settings.EMAIL_BACKEND
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = nobody.getsockname()
        assert telling.tell_of_disabled() == 0
    endpoint.refresh_from_db()
    assert endpoint.told_at is None
    settings.EMAIL_BACKEND = local
    assert telling.tell_of_disabled() == 1
    assert telling.tell_of_disabled() == 0
    assert len(mail.outbox) == 1
