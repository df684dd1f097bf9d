"""Celery's side of making deeds. A message is only a hint: each task looks at the rows first."""

import uuid

from celery import shared_task

from deeds import fulfilment, sweeping


@shared_task
def render(deed_id: str) -> None:
    """Makes one deed. Safe to run twice and at the same time: one of them gets the lease."""
    fulfilment.fulfil(uuid.UUID(deed_id))


@shared_task
def sweep() -> None:
    """Finds what a lost message or a dead worker left behind."""
    sweeping.sweep()
