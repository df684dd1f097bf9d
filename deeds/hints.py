"""Tells the workers that a deed is waiting. A hint that gets lost costs time, never the deed."""

import uuid

import structlog
from celery import current_app
from kombu.exceptions import OperationalError

from deeds.models import Deed

log = structlog.get_logger(__name__)


def hint(deed_id: uuid.UUID) -> None:
    """Sends a message. Without a broker the deed is marked, and the sweeper hints again."""
    try:
        send(str(deed_id))
    except OperationalError as error:
        log.warning("broker_unavailable", deed=str(deed_id), reason=type(error).__name__)
        Deed.objects.filter(pk=deed_id).update(hinted_at=None)


def send(deed_id: str) -> None:
    # By name: whoever takes orders need not load what renders them.
    current_app.send_task("deeds.tasks.render", [deed_id])
