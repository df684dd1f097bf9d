"""Celery's side of making deeds. A message is only a hint: each task looks at the rows first."""

import uuid
from typing import Final

import structlog
from celery import shared_task
from django.conf import settings
from django.utils import timezone

from deeds import attempts, fulfilment, hints, keeping, sweeping, verifying
from deeds.stores import StoreUnavailable

log = structlog.get_logger(__name__)

# Beyond any bound of its calls, which a system check compares. A deed that takes longer (a PDF made to be
# slow) counts as a crash.
_SOFT_SECONDS: Final = settings.DEED_SOFT_LIMIT_SECONDS
_HARD_SECONDS: Final = _SOFT_SECONDS + 30


@shared_task(soft_time_limit=_SOFT_SECONDS, time_limit=_HARD_SECONDS)
def serve(deed_id: str) -> None:
    """A deed was queued: makes the one whose turn it is."""
    fulfilment.serve(is_bulk=False, hinted=uuid.UUID(deed_id))


@shared_task(soft_time_limit=_SOFT_SECONDS, time_limit=_HARD_SECONDS)
def serve_bulk(deed_id: str) -> None:
    """The same in the line of batches."""
    fulfilment.serve(is_bulk=True, hinted=uuid.UUID(deed_id))


@shared_task(soft_time_limit=_SOFT_SECONDS, time_limit=_HARD_SECONDS)
def drain(*, is_bulk: bool) -> None:
    """Makes the deed whose turn it is, and sends itself again as long as there was one."""
    if fulfilment.serve(is_bulk=is_bulk):
        hints.revive(is_bulk=is_bulk)


@shared_task(soft_time_limit=_SOFT_SECONDS, time_limit=_HARD_SECONDS)
def render(deed_id: str) -> None:
    """A message of an earlier version, that may still be in a queue: as good as any other."""
    fulfilment.serve(is_bulk=False, hinted=uuid.UUID(deed_id))


@shared_task
def sweep() -> None:
    """Finds what a lost message or a dead worker left behind."""
    sweeping.sweep()


@shared_task
def purge_attempts() -> None:
    """Forgets attempts that were kept long enough."""
    attempts.purge(now=timezone.now())


@shared_task
def check_storage() -> None:
    """Reads some PDFs back, and tells staff of those that are missing or damaged."""
    verifying.verify(limit=settings.STORAGE_CHECK_SAMPLE)


@shared_task
def delete_old_pdfs() -> None:
    """Deletes the PDFs that were kept long enough. Safe to run twice and at the same time."""
    try:
        keeping.delete_outdated()
    except StoreUnavailable as error:
        log.warning("retention_interrupted", reason=str(error))
