"""How an attempt at a deed ends: completed, back in the queue, or failed. Each is one transaction, that does
nothing where the lease was lost: the deed is another worker's then.
"""

import datetime as dt
import random
import uuid
from typing import Any, Final

import structlog
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from billing import ledger, quotas
from deeds import attempts, charges, metrics, refusals, replacing, storage, waiting
from deeds.main_api import MainApiError
from deeds.models import Deed
from deeds.models.own_deed import own_deed
from deeds.pdf import CheckedPdf
from deeds.said import Said
from deeds.signals import deed_settled
from partner_api.http.problems import Problem

log = structlog.get_logger(__name__)

# What partners are told. What we know beyond it is in the log of attempts, for staff.
_MESSAGES: Final = {
    "main_api_unavailable": "The renderer did not work for as long as the deed was tried.",
    "main_api_timeout": "The renderer did not answer in time for as long as the deed was tried.",
    "main_api_busy": "The renderer was too busy for as long as the deed was tried.",
    "invalid_pdf": "What the renderer made was not this deed.",
    "pdf_too_large": "The PDF is larger than can be kept.",
    "storage_unavailable": "The PDF could not be stored for as long as it was tried.",
    "order_refused": "The order does not pass today's checks; see the fields that are named.",
}


def completed(deed: Deed, lease: uuid.UUID, checked: CheckedPdf, said: Said) -> None:
    """Completed, charged and announced together."""
    now = timezone.now()
    with transaction.atomic():
        is_ours = deed.complete(
            lease,
            now=now,
            name=storage.name_of(deed),
            sha256=checked.sha256,
            size=len(checked.content),
            pages=checked.pages,
        )
        if is_ours:
            attempts.note(deed, "completed", now=now, said=said)
            ledger.charge(charges.facts_of(deed, completed_at=now))
            _announce(deed)
    if is_ours:
        log.info("deed_completed", attempts=deed.attempts)
    else:
        log.warning("lease_lost", step="complete")


def went_wrong(deed: Deed, lease: uuid.UUID, error: MainApiError, *, is_probe: bool) -> None:
    """Back to the queue for later where that may help, else failed."""
    now = timezone.now()
    pause = _pause_after(deed, error, now=now, is_probe=is_probe)
    if error.is_temporary and pause is not None:
        _put_back(deed, lease, error, now=now, pause=pause)
    else:
        _fail(
            deed,
            lease,
            error.code,
            now=now,
            message=_message(error),
            is_retryable=error.is_temporary,
            errors=refusals.errors_of(error.detail),
            said=error.said,
            reason=refusals.without_facts(error.reason, deed.order),
        )


def refused_by_us(deed: Deed, lease: uuid.UUID, problem: Problem) -> None:
    """Failed: the order was taken when our checks were less strict, and must not be drawn as it is."""
    errors = [
        {"pointer": error.pointer, "code": error.code, "message": error.message} for error in problem.errors
    ]
    code = "order_refused"
    _fail(deed, lease, code, now=timezone.now(), message=_MESSAGES[code], errors=errors, said=Said(calls=0))


def _put_back(
    deed: Deed, lease: uuid.UUID, error: MainApiError, *, now: dt.datetime, pause: dt.timedelta
) -> None:
    reason = refusals.without_facts(error.reason, deed.order)
    with transaction.atomic():
        is_ours = deed.put_back(lease, now=now, next_attempt_at=now + pause, reason=error.code)
        if is_ours:
            attempts.note(deed, error.code, now=now, said=error.said, reason=reason)
    if is_ours:
        metrics.DEEDS_PUT_BACK.labels(error.code).inc()
        log.warning("deed_put_back", code=error.code, reason=reason, pause=str(pause))
    else:
        log.warning("lease_lost", step="put back")


def _fail(
    deed: Deed,
    lease: uuid.UUID,
    code: str,
    *,
    now: dt.datetime,
    message: str,
    errors: list[dict[str, Any]],
    said: Said,
    is_retryable: bool = False,
    reason: str = "",
) -> None:
    with transaction.atomic():
        is_ours = deed.fail(lease, now=now, code=code, message=message, retryable=is_retryable, errors=errors)
        if is_ours:
            attempts.note(deed, code, now=now, said=said, reason=reason)
            replacing.reinstate(deed)
            quotas.release(deed.pk)
            _announce(deed)
    if is_ours:
        log.warning("deed_failed", code=code, reason=reason)
    else:
        log.warning("lease_lost", step="fail")


def _pause_after(deed: Deed, error: MainApiError, *, now: dt.datetime, is_probe: bool) -> dt.timedelta | None:
    """How long to wait after this attempt; None when the schedule, or its time, is used up.

    An outage is no fault of the deed. It must have had both, its attempts and its time: a renderer that
    comes and goes uses up the attempts within minutes, and a long line the time before the first of them. A
    probe is no attempt of the deed's, so that its time alone counts.
    """
    schedule = settings.DEED_RETRY_SCHEDULE_SECONDS
    had_attempts = deed.attempts > len(schedule)
    left = (deed.waiting_since - now).total_seconds() + sum(schedule) if error.is_outage else 0.0
    if left <= 0 and (had_attempts or (is_probe and error.is_outage)):
        return None
    seconds = schedule[max(0, min(deed.attempts, len(schedule)) - 1)] * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
    if had_attempts:
        # The last one is at the end of its time.
        seconds = min(seconds, left)
    return dt.timedelta(seconds=max(seconds, error.retry_after or 0.0))


def _message(error: MainApiError) -> str:
    if error.code == "main_api_rejected":
        # It is about the partner's own order, and often names what to mend.
        return f"The renderer refused the order: {error.reason}"
    return _MESSAGES[error.code]


def _announce(deed: Deed) -> None:
    """Inside the transaction: tells the other apps. After it: wakes the request that waits."""
    settled = own_deed(deed.partner_id, livemode=deed.livemode, deed_id=deed.pk)
    if settled is not None:
        settled.partner = deed.partner
        deed_settled.send(sender=Deed, deed=settled)
    transaction.on_commit(lambda: waiting.wake(deed.pk))
