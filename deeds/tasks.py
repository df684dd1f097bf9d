"""Celery's side of making deeds. A message is only a hint: each task looks at the rows first."""

import uuid

import structlog
from celery import shared_task
from django.conf import settings

from deeds import fulfilment, keeping, sweeping, verifying
from deeds.storage import StoreUnavailable

log = structlog.get_logger(__name__)


@shared_task
def render(deed_id: str) -> None:
    """Makes one deed. Safe to run twice and at the same time: one of them gets the lease."""
    fulfilment.fulfil(uuid.UUID(deed_id))


@shared_task
def sweep() -> None:
    """Finds what a lost message or a dead worker left behind."""
    sweeping.sweep()


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
