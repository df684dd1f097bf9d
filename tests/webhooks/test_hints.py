"""A hint that gets lost costs time, never a row."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django_redis.cache import RedisCache
from kombu.exceptions import OperationalError

from keys.models import Partner
from tests.webhooks.conftest import Receiver
from webhooks import hints, outbox, tasks
from webhooks.event_types import KeyNews
from webhooks.models import Delivery, Endpoint


def _tell(acme: Partner) -> None:
    news = KeyNews(key=acme.pk, prefix="dp_live_x", expires_at=None)
    outbox.publish("key.revoked", news, partner=acme, livemode=True)


def test_one_message_stands_for_all_rows_until_a_worker_takes_it(hinted: list[str]) -> None:
    for _ in range(3):
        hints.hint(hints.DELIVER)
    hints.hint(hints.PROCESS)
    assert hinted == [hints.DELIVER, hints.PROCESS]
    hints.taken(hints.DELIVER)
    hints.hint(hints.DELIVER)
    assert hinted == [hints.DELIVER, hints.PROCESS, hints.DELIVER]


def test_without_redis_the_rows_are_written_and_the_sweeper_sends(
    acme: Partner,
    receiver: Receiver,
    register: Callable[..., Endpoint],
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Any,
) -> None:
    dead = RedisCache("redis://127.0.0.1:1/0", {"OPTIONS": {"SOCKET_CONNECT_TIMEOUT": 0.2}})
    monkeypatch.setattr(hints, "cache", dead)
    register(receiver.url)
    with django_capture_on_commit_callbacks(execute=True):
        _tell(acme)
    hints.taken(hints.DELIVER)
    tasks.sweep()
    assert len(receiver.received) == 1
    assert Delivery.objects.get().status == "succeeded"


def test_without_a_broker_nothing_fails(
    acme: Partner,
    receiver: Receiver,
    register: Callable[..., Endpoint],
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Any,
) -> None:
    def refuse(task: str) -> None:
        raise OperationalError(task)

    monkeypatch.setattr(hints, "send", refuse)
    register(receiver.url)
    with django_capture_on_commit_callbacks(execute=True):
        _tell(acme)
    assert Delivery.objects.get().status == "pending"
    tasks.deliver()
    assert len(receiver.received) == 1


def test_hints_from_many_requests_at_once_are_few_and_none_is_missed(hinted: list[str]) -> None:
    threads = [threading.Thread(target=hints.hint_soon, args=[hints.PROCESS]) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hints._sender.submit(lambda: None).result(5)
    assert hinted == [hints.PROCESS]
    hints.taken(hints.PROCESS)
    hints.hint_soon(hints.PROCESS)
    hints._sender.submit(lambda: None).result(5)
    assert hinted == [hints.PROCESS] * 2
