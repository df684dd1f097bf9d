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
from deeds.pdf import CheckedPdf
from deeds.stores import StoreUnavailable
from keys import audit
from keys.audit import Actor
from partner_api.http.problems import Problem
from partner_api.slots import slot

log = structlog.get_logger(__name__)


class NotRemade(Exception):
    """Why nothing was changed, in words for staff."""


def remake(deed: Deed, actor: Actor, reason: str) -> None:
    """Calls the renderer once, while the caller waits. Raises NotRemade."""
    # Of two at once the row would tell the hash of the one, and the storage have the PDF of the other.
    with slot(int.from_bytes(deed.pk.bytes[-4:], signed=True), of=1) as is_alone:
        if not is_alone:
            raise NotRemade("It is being rendered again by someone else.")
        deed.refresh_from_db()
        _remake(deed, actor, reason)
    log.info("deed_rendered_again", deed=str(deed.pk))


def _remake(deed: Deed, actor: Actor, reason: str) -> None:
    if not deed.has_pdf:
        raise NotRemade("Only a completed deed whose PDF was not deleted as agreed can be rendered again.")
    before = deed.pdf_sha256
    checked = _rendered_and_stored(deed)
    now = timezone.now()
    with transaction.atomic():
        is_remade = deed.remade(
            now=now,
            name=storage.name_of(deed),
            sha256=checked.sha256,
            size=len(checked.content),
            pages=checked.pages,
        )
        if is_remade:
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
    if not is_remade:
        _take_away(deed)
        raise NotRemade("The PDF has just been deleted as agreed.")


def _rendered_and_stored(deed: Deed) -> CheckedPdf:
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
    return checked


def _take_away(deed: Deed) -> None:
    """What was stored again after the retention had deleted it, and would find no more."""
    try:
        storage.remove(deed)
    except StoreUnavailable as error:
        log.error("pdf_not_deleted", deed=str(deed.pk), reason=str(error))  # noqa: TRY400 - of the storage


def _is_right(deed: Deed) -> bool:
    content = storage.read(deed)
    return content is not None and hashlib.sha256(content).hexdigest() == deed.pdf_sha256
