"""Celery's side of webhooks. A message is only a hint: each task looks at the rows first."""

import structlog
from celery import shared_task

from webhooks import delivery, hints, inbound, retention, stopping, telling


@shared_task
def deliver() -> None:
    """Sends what is due. Safe to run twice and at the same time: each delivery is claimed by one."""
    _begin(hints.DELIVER)
    delivery.pump()


@shared_task
def process() -> None:
    """Makes orders of what came in."""
    _begin(hints.PROCESS)
    inbound.process_waiting()


@shared_task
def sweep() -> None:
    """Finds what a lost message or a dead worker left behind, and what is due again."""
    stopping.cancel_stranded()
    inbound.process_waiting()
    delivery.pump()
    # Last: a mail server that hangs must hold up nothing else.
    telling.tell_of_disabled()


@shared_task
def forget() -> None:
    """Removes what was kept long enough. Safe to run twice and at the same time."""
    retention.forget()


def _begin(task: str) -> None:
    """What it does is for many: log lines must not name the request whose hint happened to come first."""
    structlog.contextvars.unbind_contextvars("request_id")
    hints.taken(task)
