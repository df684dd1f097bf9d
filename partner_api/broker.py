"""Celery's connection to Redis, so that a worker outlives a Redis that went away.

kombu 5.7 touches channels whose connection is gone (to acknowledge, to restore), and fails there with
an AttributeError, which Celery does not take for a lost connection and ends the worker.
"""

from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import ConnectionError as RedisConnectionError


class Channel(redis.Channel):
    # What was not acknowledged can't be put back without a connection; the sweeper finds it.
    do_restore = False

    def _connparams(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 - kombu's signature
        if self.connection is None or self.connection.client is None:
            message = "the channel's connection was closed"
            raise RedisConnectionError(message)
        return super()._connparams(asynchronous=asynchronous)  # type: ignore[misc]  # its stubs lack it


class Transport(redis.Transport):
    Channel = Channel


def install() -> None:
    """Makes `redis://` and `rediss://` brokers use this transport."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
