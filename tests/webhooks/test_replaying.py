"""A replay of a long time: in batches, bounded, and right beside workers that change the same rows."""

import datetime as dt
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, connections
from django.utils import timezone

from keys.models import Partner
from partner_api.ops.health import own_connection
from tests.api import Api, errors_of
from tests.webhooks.conftest import Register, Tell, only
from webhooks import hints, outbox, stopping
from webhooks.event_types import KeyNews
from webhooks.models import Delivery, Endpoint, Event

pytestmark = pytest.mark.usefixtures("hinted")
LONG_AGO = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def _events(partner: Partner, number: int) -> None:
    Event.objects.bulk_create(
        Event(type="key.revoked", partner=partner, livemode=True, data={}) for _ in range(number)
    )


def test_it_works_over_several_batches(
    register: Register, acme: Partner, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_BATCH", 10)
    endpoint = register("https://hooks.example.com/")
    for _ in range(15):
        tell()
    Delivery.objects.update(status="failed", settled_at=timezone.now(), attempts=8)
    _events(acme, 20)
    assert outbox.replay(endpoint, since=LONG_AGO, undelivered_only=True) == 35
    assert list(Delivery.objects.values_list("status", "attempts").distinct()) == [("pending", 0)]
    assert Delivery.objects.count() == 35


def test_an_endpoint_gets_again_what_it_wants_of_its_own_partner_and_mode(
    api: Api, stranger: Api, acme: Partner, register: Register, tell: Tell
) -> None:
    news = {"key": acme.pk, "prefix": "dp_live_x", "expires_at": None}
    for partner, livemode, name in (
        (stranger.partner, True, "key.revoked"),
        (acme, False, "key.revoked"),
        (acme, True, "key.rotated"),
    ):
        outbox.publish(name, KeyNews.model_validate(news), partner=partner, livemode=livemode)
    outbox.send_test(register("https://other.example.com/", "webhook.test"))
    Delivery.objects.all().delete()
    own = tell()
    endpoint = register("https://hooks.example.com/", "key.revoked", "webhook.test")
    answer = api.post(f"/v2/webhook-endpoints/{endpoint.pk}/replay", {"since": "2026-01-01T00:00:00Z"})
    assert answer.json() == {"queued": 1}
    assert (only().event, only().endpoint) == (own, endpoint)


@pytest.mark.parametrize("undelivered_only", [True, False])
def test_what_was_delivered_is_sent_again_where_that_is_asked_for(
    register: Register, tell: Tell, *, undelivered_only: bool
) -> None:
    endpoint = register("https://hooks.example.com/")
    now = timezone.now()
    for status in ("failed", "cancelled", "succeeded"):
        Delivery.objects.filter(event=tell()).update(status=status, settled_at=now)
    queued = outbox.replay(endpoint, since=LONG_AGO, undelivered_only=undelivered_only)
    left = Delivery.objects.exclude(status="pending").values_list("status", flat=True)
    assert (queued, list(left)) == ((2, ["succeeded"]) if undelivered_only else (3, []))


def test_who_sends_once_more_wakes_the_workers(
    register: Register, tell: Tell, hinted: list[str], django_capture_on_commit_callbacks: Any
) -> None:
    endpoint = register("https://hooks.example.com/")
    tell()
    sent = only()
    for act in (
        lambda: outbox.replay(endpoint, since=LONG_AGO, undelivered_only=False),
        lambda: outbox.resend(sent),
        lambda: outbox.send_test(endpoint),
    ):
        hinted.clear()
        hints.taken(hints.DELIVER)
        with django_capture_on_commit_callbacks(execute=True):
            act()
        assert hinted == ["webhooks.tasks.deliver"]


def test_too_many_at_once_are_refused_with_a_way_out(
    api: Api, register: Register, acme: Partner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_REPLAYED", 10)
    path = f"/v2/webhook-endpoints/{register('https://hooks.example.com/').pk}/replay"
    _events(acme, 11)
    middle = timezone.now()
    refused = api.post(path, {"since": "2026-01-01T00:00:00Z"})
    assert errors_of(refused) == {"/since": "too_many"}
    assert "`until`" in refused.json()["detail"]
    assert not Delivery.objects.exists()
    Event.objects.filter(pk__in=Event.objects.order_by("id")[:5]).update(created_at=LONG_AGO)
    halves = [
        api.post(path, {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"}),
        api.post(path, {"since": "2026-01-02T00:00:00Z", "until": middle.isoformat()}),
    ]
    assert [answer.json() for answer in halves] == [{"queued": 5}, {"queued": 6}]


def test_a_deleted_endpoints_owner_is_not_told_to_enable_it(register: Register, tell: Tell) -> None:
    endpoint = register("https://hooks.example.com/")
    tell()
    stopping.delete(endpoint)
    with pytest.raises(Exception, match="was deleted"):
        outbox.resend(only())


@pytest.fixture
def claimed_meanwhile(transactional_db: None) -> Callable[[Callable[[], Any]], Any]:
    """Has an act wait for a worker's claim of the only delivery, and gives what the act answers then."""

    def run(act: Callable[[], Any]) -> Any:
        def beside() -> Any:
            try:
                return act()
            finally:
                connections.close_all()

        with own_connection() as worker, ThreadPoolExecutor(1) as threads:
            worker.execute(
                "UPDATE webhook_deliveries SET status = 'sending', settled_at = NULL, lease = %s,"
                " lease_expires_at = now() + interval '90 seconds'",
                [uuid.uuid4()],
            )
            answer = threads.submit(beside)
            _until_it_waits(answer)
            worker.commit()
            return answer.result(10)

    return run


def _until_it_waits(answer: Any) -> None:
    with connection.cursor() as cursor:
        for _ in range(500):
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND wait_event_type = 'Lock'"
            )
            if cursor.fetchone()[0] or answer.done():
                return
            cursor.execute("SELECT pg_sleep(0.02)")
    message = "it never waited"
    raise AssertionError(message)


def test_a_replay_leaves_what_was_claimed_meanwhile(
    claimed_meanwhile: Any, register: Register, tell: Tell
) -> None:
    endpoint = register("https://hooks.example.com/")
    tell()
    Delivery.objects.update(status="failed", settled_at=timezone.now())
    assert claimed_meanwhile(lambda: outbox.replay(endpoint, since=LONG_AGO, undelivered_only=False)) == 0
    assert only().status == "sending"


def test_what_is_stranded_is_not_cancelled_once_it_was_claimed(
    claimed_meanwhile: Any, register: Register, tell: Tell
) -> None:
    endpoint = register("https://hooks.example.com/")
    tell()
    Endpoint.objects.filter(pk=endpoint.pk).update(
        enabled=False, disabled_reason="by_staff", disabled_at=timezone.now()
    )
    assert claimed_meanwhile(stopping.cancel_stranded) == 0
    assert only().status == "sending"
