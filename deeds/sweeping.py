"""Finds deeds that nobody is working on: due again, never announced, or left by a dead worker."""

import datetime as dt

import structlog
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from billing import quotas
from deeds import waiting
from deeds.hints import hint_all
from deeds.models import Deed
from deeds.signals import deed_settled

log = structlog.get_logger(__name__)

BATCH = 500


def sweep() -> dict[str, int]:
    """How many were taken from dead workers, hinted at again, and found to hold a place for nothing."""
    now = timezone.now()
    counts = {"recovered": _recover(now), "hinted": _hint(now), "released": _release_places(now)}
    if any(counts.values()):
        log.info("swept", **counts)
    return counts


def _recover(now: dt.datetime) -> int:
    recovered = 0
    for deed in Deed.objects.abandoned(now).order_by("lease_expires_at")[:BATCH]:
        with transaction.atomic():
            is_recovered = deed.recover(now=now)
            deed.refresh_from_db()
            if is_recovered and deed.is_settled:
                quotas.release(deed.pk)
                deed_settled.send(sender=Deed, deed=deed)
        if is_recovered and deed.is_settled:
            waiting.wake(deed.pk)
        recovered += is_recovered
    return recovered


def _hint(now: dt.datetime) -> int:
    # A message that no worker has come to in this time may be lost; one too many does no harm.
    since = now - dt.timedelta(seconds=settings.DEED_HINT_AGAIN_SECONDS)
    due = Deed.objects.claimable(now).unhinted(since).order_by("next_attempt_at")
    ids = list(due.values_list("pk", flat=True)[:BATCH])
    Deed.objects.filter(pk__in=ids).update(hinted_at=now)
    hint_all(ids)
    return len(ids)


def _release_places(now: dt.datetime) -> int:
    """Gives back the places in quotas whose orders have ended or are gone without doing so."""
    released = 0
    since = now - dt.timedelta(seconds=settings.RESERVATION_STALE_SECONDS)
    for ids in quotas.held_since_before(since, at_once=BATCH):
        waiting_for = Deed.objects.filter(pk__in=ids, status__in=[Deed.Status.QUEUED, Deed.Status.RENDERING])
        for deed_id in set(ids) - set(waiting_for.values_list("pk", flat=True)):
            with transaction.atomic():
                released += quotas.release(deed_id) is not None
    return released
