"""Celery's side of making deeds. A message is only a hint: each task looks at the rows first."""

import uuid

import structlog
from celery import shared_task

log = structlog.get_logger(__name__)


@shared_task
def render(deed_id: str) -> None:
    """Makes one deed. Safe to run twice and at the same time: one of them gets the lease."""
    from deeds import fulfilment  # noqa: PLC0415 - a web process enqueues without pypdf

    fulfilment.fulfil(uuid.UUID(deed_id))


@shared_task
def sweep() -> None:
    """Finds what a lost message or a dead worker left behind."""
    from deeds import sweeping  # noqa: PLC0415 - as above

    sweeping.sweep()
