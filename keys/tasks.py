"""Celery's side of keys."""

from celery import shared_task
from django.core.management import call_command

from keys import warning


@shared_task
def warn_of_ending_keys() -> None:
    """Tells partners of keys that end soon. Safe to run twice and at the same time."""
    warning.warn()


@shared_task
def forget_ended_sessions() -> None:
    """Deletes staff's sessions that ended by themselves; a logout deletes its own."""
    call_command("clearsessions")
