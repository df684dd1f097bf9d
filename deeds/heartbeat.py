"""Keeps a lease alive while its deed is being made, however long the Main API or the storage takes.

A worker that dies stops its heart too; the lease then runs out soon, whatever the longest call is.
"""

import datetime as dt
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.utils import timezone

from deeds.models import Deed

log = structlog.get_logger(__name__)

# A worker whose work never ends must not keep its deed for ever: beyond any bound of its calls.
_LONGEST: Final = dt.timedelta(minutes=15)


@contextmanager
def beating(deed: Deed, lease: uuid.UUID) -> Iterator[None]:
    """Renews the lease three times in its life, until the block ends or the lease is lost."""
    done = threading.Event()
    heart = threading.Thread(target=_beat, args=(deed, lease, done), name="heartbeat", daemon=True)
    heart.start()
    try:
        yield
    finally:
        done.set()
        heart.join()


def _beat(deed: Deed, lease: uuid.UUID, done: threading.Event) -> None:
    ends_at = timezone.now() + _LONGEST
    try:
        while not done.wait(settings.DEED_LEASE_SECONDS / 3):
            if timezone.now() > ends_at:
                log.error("deed_takes_too_long", deed=str(deed.pk))
                return
            if not _renew(deed, lease):
                return
    finally:
        connection.close()


def _renew(deed: Deed, lease: uuid.UUID) -> bool:
    """False when the lease was lost. A database that does not answer now may do so at the next beat."""
    try:
        return deed.renew(lease, now=timezone.now())
    except (DatabaseError, InterfaceError) as error:
        log.warning("heartbeat_missed", deed=str(deed.pk), reason=type(error).__name__)
        reconnect()
        return True


def reconnect() -> None:
    """Leaves a connection that broke, and those in the pool that broke with it.

    Django keeps a broken one until it is closed: nothing else in a task does that. One that is not broken
    is ended as well, not given back to the pool: it may hold a place (`partner_api.slots`).
    """
    if connection.connection is not None:
        connection.connection.close()
    connection.close()
    connection.pool.check()  # type: ignore[attr-defined]  # of Django's backend for Postgres
