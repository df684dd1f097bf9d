"""Lets a request wait for its deed: without asking the database in a loop, and not too many at once.

A worker publishes in Redis when a deed is settled. The database is looked at once after subscribing
(it may have been faster), when the news comes, and now and then in case the news got lost.
"""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from django.conf import settings
from django.db import connection
from django_redis import get_redis_connection
from redis.exceptions import RedisError

from deeds.models import Deed

log = structlog.get_logger(__name__)

LOOK_EVERY_SECONDS = 3.0
_seats = threading.BoundedSemaphore(settings.WAITING_REQUESTS_PER_PROCESS)


def wake(deed_id: uuid.UUID) -> None:
    """Tells whoever waits for the deed. Nobody is told while Redis is away; they look themselves."""
    try:
        get_redis_connection("default").publish(_channel(deed_id), "settled")
    except RedisError as error:
        log.warning("wake_failed", reason=type(error).__name__)


def wait_for(deed: Deed, *, seconds: float) -> Deed:
    """The deed once it is settled, or as it is after `seconds`, or at once when all seats are taken."""
    with _seat() as is_seated:
        if is_seated and not deed.is_settled and seconds > 0:
            _wait(deed, deadline=time.monotonic() + seconds)
    return deed


@contextmanager
def _seat() -> Iterator[bool]:
    is_seated = _seats.acquire(blocking=False)
    try:
        yield is_seated
    finally:
        if is_seated:
            _seats.release()


def _wait(deed: Deed, *, deadline: float) -> None:
    try:
        with get_redis_connection("default").pubsub(ignore_subscribe_messages=True) as news:
            news.subscribe(_channel(deed.pk))
            _look(deed)
            while not deed.is_settled and (left := deadline - time.monotonic()) > 0:
                news.get_message(timeout=min(left, LOOK_EVERY_SECONDS))
                _look(deed)
    except RedisError as error:
        log.warning("waiting_without_redis", reason=type(error).__name__)
        pause = threading.Event()
        while not deed.is_settled and (left := deadline - time.monotonic()) > 0:
            pause.wait(min(left, LOOK_EVERY_SECONDS))
            _look(deed)


def _look(deed: Deed) -> None:
    deed.refresh_from_db()
    if not connection.in_atomic_block:
        # A request that waits must not keep one of the few connections.
        connection.close()


def _channel(deed_id: uuid.UUID) -> str:
    return f"deed-settled:{deed_id}"
