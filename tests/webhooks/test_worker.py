"""Deliveries with real workers: what hangs delays nobody, and what is killed loses nothing."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from keys.models import Partner
from tests.e2e.conftest import Deployment, deployment  # noqa: F401 - a fixture
from tests.webhooks.conftest import Receiver
from webhooks import delivery, outbox
from webhooks.event_types import KeyNews
from webhooks.models import Delivery, Endpoint

Register = Callable[..., Endpoint]


def _tell(acme: Partner, times: int) -> set[str]:
    news = KeyNews(key=acme.pk, prefix="dp_live_x", expires_at=None)
    events = [outbox.publish("key.revoked", news, partner=acme, livemode=True) for _ in range(times)]
    return {str(event.pk) for event in events}


def _ids(receiver: Receiver) -> set[str]:
    return {received.headers["webhook-id"] for received in receiver.received}


def _wait(is_so: Callable[[], bool], seconds: float) -> None:
    ends_at = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < ends_at, "it did not come"
        threading.Event().wait(0.05)


@pytest.mark.django_db(transaction=True)
def test_what_hangs_or_fails_delays_nobody(
    acme: Partner, receivers: Callable[[], Receiver], register: Register, settings: Any, hinted: list[str]
) -> None:
    settings.WEBHOOKS_CONCURRENCY = 4
    settings.WEBHOOKS_MAX_FLIGHTS = 16
    settings.WEBHOOKS_SCHEDULE_SECONDS = [0, *[0.1] * 50]
    settings.WEBHOOKS_SLOW_SECONDS = 1
    released = threading.Event()

    def hang(handler: Any) -> None:
        released.wait(60)
        handler.send_response(204)
        handler.end_headers()

    turns: list[int] = []

    def flaky(handler: Any) -> None:
        turns.append(1)
        handler.send_response(500 if len(turns) % 2 else 204)
        handler.end_headers()

    healthy, hanging, failing = ([receivers() for _ in range(2)] for _ in range(3))
    for receiver in hanging:
        receiver.answer = hang
    for receiver in failing:
        receiver.answer = flaky
    for receiver in [*healthy, *hanging, *failing]:
        register(receiver.url)
    events = _tell(acme, 20)

    def work() -> None:
        try:
            delivery.pump(seconds=60)
        finally:
            connection.close()

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        # The hanging ones hold their places all the while: nothing here waits for them to give up.
        _wait(lambda: all(_ids(receiver) == events for receiver in healthy), 12)
        assert not any(
            Delivery.objects.filter(endpoint__url=receiver.url, status="succeeded").exists()
            for receiver in hanging
        )
        assert max(len(receiver.received) for receiver in hanging) <= settings.WEBHOOKS_ENDPOINT_CONCURRENCY
    finally:
        released.set()
        for receiver in [*hanging, *failing]:
            receiver.answer = 204
        for worker in workers:
            worker.join()
    _wait(lambda: delivery.pump() is not None and not Delivery.objects.open().exists(), 20)
    assert all(_ids(receiver) == events for receiver in [*hanging, *failing])
    assert Delivery.objects.filter(status="succeeded").count() == 20 * 6


def test_a_worker_that_is_killed_loses_no_delivery(
    deployment: Deployment,  # noqa: F811 - the fixture
    acme: Partner,
    receivers: Callable[[], Receiver],
    register: Register,
) -> None:
    deployment.env |= {
        "WEBHOOKS_ALLOW_HTTP": "true",
        "WEBHOOKS_ALLOW_PRIVATE_ADDRESSES": "127.0.0.1/32",
        "WEBHOOKS_LEASE_SECONDS": "2",
        "WORKER_CONCURRENCY": "1",
    }
    receiver, held = receivers(), receivers()
    blocked = threading.Event()

    def hold(handler: Any) -> None:
        blocked.wait(30)
        handler.send_response(204)
        handler.end_headers()

    held.answer = hold
    register(receiver.url)
    register(held.url)
    worker = deployment.start("worker", "-m", "celery", "-A", "partner_api", "worker")
    events = _tell(acme, 10)
    _wait(lambda: _ids(receiver) == events and bool(held.received), 45)
    worker.kill()
    deployment.children.remove(worker)
    blocked.set()
    held.answer = 204
    assert Delivery.objects.filter(status="sending").exists()
    # Beat is part of this one: nothing else tells it that there is work.
    deployment.env["WEBHOOKS_SWEEP_SECONDS"] = "0.5"
    beat = ["-B", "-s", str(deployment.folder / "schedule")]
    deployment.start("second", "-m", "celery", "-A", "partner_api", "worker", *beat)
    _wait(lambda: not Delivery.objects.exclude(status="succeeded").exists(), 45)
    assert _ids(held) == events
    assert len(held.received) > len(events)
