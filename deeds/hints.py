"""Tells the workers that a deed is waiting. A hint that gets lost costs time, never the deed."""

import uuid

import structlog
from django.conf import settings
from kombu.exceptions import OperationalError

from deeds.models import Deed
from partner_api import broker

log = structlog.get_logger(__name__)


def hint(deed_id: uuid.UUID, *, is_bulk: bool = False) -> None:
    """Sends a message. Without a broker the deed is marked, and the sweeper hints again."""
    hint_all([deed_id], is_bulk=is_bulk)


def hint_all(deed_ids: list[uuid.UUID], *, is_bulk: bool = False) -> None:
    """The same for many, in their order. Once the broker is found away, the rest are only marked."""
    for position, deed_id in enumerate(deed_ids):
        try:
            if is_bulk:
                send_bulk(str(deed_id))
            else:
                send(str(deed_id))
        except OperationalError as error:
            log.warning("broker_unavailable", deeds=len(deed_ids), reason=type(error).__name__)
            Deed.objects.filter(pk__in=deed_ids[position:]).update(hinted_at=None)
            return


def send(deed_id: str) -> None:
    broker.send("deeds.tasks.serve", deed_id)


def send_bulk(deed_id: str) -> None:
    broker.send("deeds.tasks.serve_bulk", deed_id, queue=settings.DEED_BULK_QUEUE)


def revive(*, is_bulk: bool) -> None:
    """Sends a message that renews itself as long as something is due. Raises kombu's OperationalError."""
    queue = settings.DEED_BULK_QUEUE if is_bulk else settings.CELERY_TASK_DEFAULT_QUEUE
    broker.send("deeds.tasks.drain", queue=queue, is_bulk=is_bulk)


def sweep_now() -> None:
    """Has the sweeper look before its time. Without a broker it looks when its time comes."""
    try:
        broker.send("deeds.tasks.sweep")
    except OperationalError as error:
        log.warning("broker_unavailable", reason=type(error).__name__)
