"""Celery's messages: sent without waiting for a broker that does not answer; and its connection to Redis, so
that a worker outlives a Redis that went away, and a message costs little.

kombu 5.7 touches channels whose connection is gone (to acknowledge, to restore), and fails there with
an AttributeError, which Celery does not take for a lost connection and ends the worker. And for each
message it makes a new client of its pool, which costs more than sending it.
"""

from typing import Any

from celery import current_app
from django.conf import settings
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import ConnectionError as RedisConnectionError

from partner_api.breaker import Breaker

_breaker = Breaker()


def send(task: str, *arguments: str, queue: str | None = None, **options: Any) -> None:
    """Has a worker run the task, which is known by its name: whoever sends need not load what does the work.

    Raises kombu's OperationalError where the broker is away, or was found away a moment ago.
    """
    moment = settings.BROKER_RETRY_SECONDS
    if not _breaker.may_ask(after_seconds=moment):
        message = "the broker was away a moment ago"
        raise OperationalError(message)
    try:
        current_app.send_task(task, arguments, options, queue=queue)
    except OperationalError:
        _breaker.failed(after_seconds=moment)
        raise
    _breaker.succeeded()


class Channel(redis.Channel):
    # What was not acknowledged can't be put back without a connection; the sweeper finds it.
    do_restore = False
    _kept: Any = None

    def _connparams(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 - kombu's signature
        if self.connection is None or self.connection.client is None:
            message = "the channel's connection was closed"
            raise RedisConnectionError(message)
        return super()._connparams(asynchronous=asynchronous)  # type: ignore[misc]  # its stubs lack it

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 - kombu's signature
        if asynchronous:
            return super()._create_client(asynchronous=True)  # type: ignore[misc]  # its stubs lack it
        # A client is only a way to its pool, and may be used by several threads as the pool may. After an
        # error or a fork the channel has another pool.
        if self._kept is None or self._kept.connection_pool is not self.pool:
            self._kept = super()._create_client()  # type: ignore[misc]  # as above
        return self._kept


class Transport(redis.Transport):
    Channel = Channel


def install() -> None:
    """Makes `redis://` and `rediss://` brokers use this transport."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
