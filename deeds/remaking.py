"""Makes the PDF of a completed deed again, because the storage lost it or has another one in its place.

It stays the same deed: nothing is charged, counted or announced. The PDF need not be the same to the byte,
so the row, the timeline and the audit trail say that it was made again.
"""

import hashlib

import structlog
from django.db import transaction
from django.utils import timezone

from deeds import fulfilment, reading, storage
from deeds.main_api import MainApiError
from deeds.models import Deed, StorageFinding
from deeds.stores import StoreUnavailable
from keys import audit
from keys.audit import Actor
from partner_api.http.problems import Problem

log = structlog.get_logger(__name__)


class NotRemade(Exception):
    """Why nothing was changed, in words for staff."""


def remake(deed: Deed, actor: Actor, reason: str) -> None:
    """Calls the renderer once, while the caller waits. Raises NotRemade."""
    if not deed.has_pdf:
        raise NotRemade("Only a completed deed whose PDF was not deleted as agreed can be rendered again.")
    try:
        if _is_right(deed):
            raise NotRemade("The PDF is there as it was stored; a partner may have recorded it.")
        facts = reading.read(deed.order).order
        checked, _ = fulfilment.rendered(deed, facts, is_probe=True)
        storage.keep(deed, checked.content, replace=True)
    except StoreUnavailable as error:
        raise NotRemade(f"The storage does not answer now ({error}).") from error
    except Problem as problem:
        where = ", ".join(error.pointer for error in problem.errors)
        raise NotRemade(f"The order does not pass today's checks: {where}.") from problem
    except MainApiError as error:
        raise NotRemade(f"The renderer made no deed ({error.code}: {error.reason}).") from error
    now, before = timezone.now(), deed.pdf_sha256
    with transaction.atomic():
        if not deed.remade(
            now=now,
            name=storage.name_of(deed),
            sha256=checked.sha256,
            size=len(checked.content),
            pages=checked.pages,
        ):
            raise NotRemade("Another was faster, or the PDF has just been deleted as agreed.")
        StorageFinding.objects.filter(deed=deed, resolved_at=None).update(resolved_at=now)
        facts_of = [{"pdf_sha256": sha256} for sha256 in (before, checked.sha256)]
        audit.record(
            actor,
            "deed.rendered_again",
            deed,
            partner=deed.partner,
            before=facts_of[0],
            after=facts_of[1],
            reason=reason,
        )
    log.info("deed_rendered_again", deed=str(deed.pk))


def _is_right(deed: Deed) -> bool:
    content = storage.read(deed)
    return content is not None and hashlib.sha256(content).hexdigest() == deed.pdf_sha256
