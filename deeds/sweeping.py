"""Finds deeds that nobody is working on: due again, never announced, or left by a dead worker.

One sweeper at a time: Postgres holds a lock for as long as its connection lives.
"""

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone
from kombu.exceptions import OperationalError

from billing import quotas
from deeds import attempts, circuit, replacing, waiting
from deeds.hints import hint_all, revive
from deeds.main_api import renderer_for
from deeds.models import Deed
from deeds.signals import deed_settled

log = structlog.get_logger(__name__)

BATCH: Final = 500
# Messages that renew themselves; each sweep sends so many while deeds wait that should not.
REVIVED: Final = 8
_LOCK: Final = 0x5EE9_DEED


def sweep() -> dict[str, int]:
    """How many were taken from dead workers, hinted at again, and found to hold a place for nothing.

    All are 0 while another sweeper is at work.
    """
    now = timezone.now()
    counts = {"recovered": 0, "hinted": 0, "released": 0}
    with _alone() as is_alone:
        if is_alone:
            counts = {"recovered": _recover(now), "hinted": _hint(now), "released": _release_places(now)}
    if any(counts.values()):
        log.info("swept", **counts)
    return counts


@contextmanager
def _alone() -> Iterator[bool]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK])
        is_alone = bool(cursor.fetchone()[0])
    try:
        yield is_alone
    finally:
        if is_alone and not connection.needs_rollback:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


def _recover(now: dt.datetime) -> int:
    recovered = 0
    for deed in Deed.objects.abandoned(now).order_by("lease_expires_at")[:BATCH]:
        cause = attempts.last_cause(deed)
        with transaction.atomic():
            is_recovered = deed.recover(now=now)
            if is_recovered:
                attempts.note(deed, "worker_lost", now=now, reason=cause)
            deed.refresh_from_db()
            if is_recovered and deed.is_settled:
                replacing.reinstate(deed)
                quotas.release(deed.pk)
                deed_settled.send(sender=Deed, deed=deed)
        if is_recovered and deed.is_settled:
            waiting.wake(deed.pk)
        recovered += is_recovered
    return recovered


def _hint(now: dt.datetime) -> int:
    """Hints at deeds that have no message under way, as far as their renderer may be called."""
    hinted = 0
    for livemode in (True, False):
        state = circuit.state(renderer_for(livemode=livemode))
        if state == "half_open":
            _send_drains(1, is_bulk=False)
        if state != "closed":
            continue
        for is_bulk in (False, True):
            ids = list(unhinted(now, livemode=livemode, is_bulk=is_bulk))
            Deed.objects.filter(pk__in=ids).update(hinted_at=now)
            hint_all(ids, is_bulk=is_bulk)
            # Messages that no worker came to in this time may be lost: a few new ones serve all that wait.
            late = list(long_hinted(now, livemode=livemode, is_bulk=is_bulk))
            Deed.objects.filter(pk__in=late).update(hinted_at=now)
            _send_drains(len(late), is_bulk=is_bulk)
            hinted += len(ids) + len(late)
    return hinted


def unhinted(now: dt.datetime, *, livemode: bool, is_bulk: bool) -> QuerySet[Deed, UUID]:
    """Ids of deeds that are due and were never announced, or whose message was used up."""
    due = Deed.objects.claimable(now).filter(livemode=livemode, is_bulk=is_bulk, hinted_at=None)
    return due.order_by("next_attempt_at").values_list("pk", flat=True)[:BATCH]


def long_hinted(now: dt.datetime, *, livemode: bool, is_bulk: bool) -> QuerySet[Deed, UUID]:
    """Ids of some deeds that are due and were announced DEED_HINT_AGAIN_SECONDS ago."""
    since = now - dt.timedelta(seconds=settings.DEED_HINT_AGAIN_SECONDS)
    due = Deed.objects.claimable(now).filter(livemode=livemode, is_bulk=is_bulk, hinted_at__lte=since)
    return due.order_by("hinted_at").values_list("pk", flat=True)[:REVIVED]


def _send_drains(number: int, *, is_bulk: bool) -> None:
    try:
        for _ in range(number):
            revive(is_bulk=is_bulk)
    except OperationalError as error:
        log.warning("broker_unavailable", reason=type(error).__name__)


def _release_places(now: dt.datetime) -> int:
    """Gives back the places in quotas whose orders have ended or are gone without doing so."""
    released = 0
    for deed_id in held_for_nothing(now):
        with transaction.atomic():
            released += quotas.release(deed_id) is not None
    return released


def held_for_nothing(now: dt.datetime) -> QuerySet[Any, UUID]:
    """Ids of some orders with an old place in a quota that are neither queued nor rendered (any more)."""
    since = now - dt.timedelta(seconds=settings.RESERVATION_STALE_SECONDS)
    places = quotas.held_since_before(since)
    # One status at a time, for which there is a partial index; of both at once there is none.
    for status in (Deed.Status.QUEUED, Deed.Status.RENDERING):
        places = places.exclude(Exists(Deed.objects.filter(pk=OuterRef("source_id"), status=status)))
    return places.values_list("source_id", flat=True)[:BATCH]
