"""How much work a partner may have queued: DEED_MAX_QUEUED_PER_PARTNER deeds, live and test together.

It is an upper bound on what is stored, not a fence to the deed: each process counts every few seconds,
and adds what it accepted itself in between.
"""

import threading
import time
import uuid
from dataclasses import dataclass
from typing import Final

from django.conf import settings

from deeds.models import Deed
from keys.models import Partner
from partner_api.http.problems import Problem

COUNT_EVERY_SECONDS: Final = 2.0
_PARTNERS_REMEMBERED: Final = 10_000
_RETRY_AFTER: Final = "30"


@dataclass
class _Count:
    queued: int
    until: float


_counts: dict[uuid.UUID, _Count] = {}
_lock = threading.Lock()


def has_room(partner: Partner, number: int) -> bool:
    return room(partner) >= number


def room(partner: Partner) -> int:
    """How many more deeds may be queued."""
    count = _counts.get(partner.pk)
    if count is None or count.until < time.monotonic():
        count = _Count(_queued(partner), time.monotonic() + COUNT_EVERY_SECONDS)
        with _lock:
            if len(_counts) >= _PARTNERS_REMEMBERED:
                _counts.clear()
            _counts[partner.pk] = count
    limit: int = settings.DEED_MAX_QUEUED_PER_PARTNER
    return max(0, limit - count.queued)


def add(partner: Partner, number: int) -> None:
    """Counts what was just accepted."""
    count = _counts.get(partner.pk)
    if count is not None:
        with _lock:
            count.queued += number


def full() -> Problem:
    limit = settings.DEED_MAX_QUEUED_PER_PARTNER
    detail = f"{limit:,} of your deeds are queued already; this order was not stored."
    return Problem("queue_full", detail, headers={"Retry-After": _RETRY_AFTER})


def _queued(partner: Partner) -> int:
    """Counts in the index of lines, and no further than matters."""
    queued = Deed.objects.filter(
        is_bulk__in=(False, True), livemode__in=(False, True), partner=partner, status=Deed.Status.QUEUED
    )
    number: int = queued.order_by()[: settings.DEED_MAX_QUEUED_PER_PARTNER].count()
    return number
