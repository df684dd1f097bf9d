"""Celery's side of webhooks. A message is only a hint: each task looks at the rows first."""

from celery import shared_task

from webhooks import delivery, hints, inbound, outbox, retention, telling


@shared_task
def deliver() -> None:
    """Sends what is due. Safe to run twice and at the same time: each delivery is claimed by one."""
    hints.taken(hints.DELIVER)
    delivery.pump()


@shared_task
def process() -> None:
    """Makes orders of what came in."""
    hints.taken(hints.PROCESS)
    inbound.process_waiting()


@shared_task
def sweep() -> None:
    """Finds what a lost message or a dead worker left behind, and what is due again."""
    telling.tell_of_disabled()
    outbox.cancel_stranded()
    inbound.process_waiting()
    delivery.pump()


@shared_task
def forget() -> None:
    """Removes what was kept long enough. Safe to run twice and at the same time."""
    retention.forget()
