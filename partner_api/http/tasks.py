"""Celery's side of what HTTP remembers."""

from celery import shared_task
from django.utils import timezone

from partner_api.http import idempotency


@shared_task
def purge_kept_answers() -> None:
    """Answers to idempotent requests are kept for a day; this removes what is older."""
    idempotency.purge(now=timezone.now())
