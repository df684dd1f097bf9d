"""Celery's side of billing. Each task is safe to run twice and at the same time."""

from celery import shared_task

from billing import draining, retention


@shared_task
def drain_usage() -> None:
    """Stores what web processes that share our folder left behind."""
    draining.drain()


@shared_task
def keep_partitions() -> None:
    """Makes the months to come, and drops what is past its retention."""
    retention.keep()
