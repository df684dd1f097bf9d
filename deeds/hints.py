"""Tells the workers that a deed is waiting. A hint that gets lost costs time, never the deed."""

import uuid

import structlog
from celery import current_app
from kombu.exceptions import OperationalError

from deeds.models import Deed

log = structlog.get_logger(__name__)


def hint(deed_id: uuid.UUID) -> None:
    """Sends a message. Without a broker the deed is marked, and the sweeper hints again."""
    hint_all([deed_id])


def hint_all(deed_ids: list[uuid.UUID]) -> None:
    """The same for many, in their order. Once the broker is found away, the rest are only marked."""
    for position, deed_id in enumerate(deed_ids):
        try:
            send(str(deed_id))
        except OperationalError as error:
            log.warning("broker_unavailable", deeds=len(deed_ids), reason=type(error).__name__)
            Deed.objects.filter(pk__in=deed_ids[position:]).update(hinted_at=None)
            return


def send(deed_id: str) -> None:
    # By name: whoever takes orders need not load what renders them.
    current_app.send_task("deeds.tasks.render", [deed_id])
