"""Celery's side of billing. Each task looks at the rows first, and is safe to run twice and at once."""

from celery import shared_task
from django.utils import timezone

from billing import draining, invoicing, retention


@shared_task
def drain_usage() -> None:
    """Stores what web processes that share our folder left behind."""
    draining.drain()


@shared_task
def keep_partitions() -> None:
    """Makes the months to come, and drops what is past its retention."""
    retention.keep()


@shared_task
def draft_invoices() -> None:
    """Closes the periods that have ended."""
    invoicing.close_ended(now=timezone.now())
