"""Celery's side of watching."""

from celery import shared_task

from partner_api.ops import watching


@shared_task
def watch() -> None:
    """Tells staff of what begins and what is over."""
    watching.watch()
