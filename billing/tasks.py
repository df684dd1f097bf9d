"""Celery's side of billing. Each task looks at the rows first, and is safe to run twice and at once."""

from celery import shared_task
from django.utils import timezone

from billing import invoicing


@shared_task
def draft_invoices() -> None:
    """Closes the periods that have ended."""
    invoicing.close_ended(now=timezone.now())
