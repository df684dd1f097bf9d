"""Celery's side of keys."""

from celery import shared_task

from keys import warning


@shared_task
def warn_of_ending_keys() -> None:
    """Tells partners of keys that end soon. Safe to run twice and at the same time."""
    warning.warn()
