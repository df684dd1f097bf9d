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
from webhooks import outbox, stopping
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
