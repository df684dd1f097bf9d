"""Celery's connection to Redis, so that a worker outlives a Redis that went away, and a message costs little.

kombu 5.7 touches channels whose connection is gone (to acknowledge, to restore), and fails there with
an AttributeError, which Celery does not take for a lost connection and ends the worker. And for each
message it makes a new client of its pool, which costs more than sending it.
"""

from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import ConnectionError as RedisConnectionError


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
