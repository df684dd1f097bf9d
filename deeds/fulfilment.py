"""Makes a deed that is queued: claim, render, check, store, complete.

No transaction is open while the Main API or the storage is called. A process may die after any step:
the lease then runs out, the sweeper queues the deed again, and a repeated step overwrites its own
result.
"""

import datetime as dt
import random
import uuid

import structlog
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from deeds import mapping, order_metrics, pdf, reading, storage, waiting
from deeds.catalog import DEED_TYPES
from deeds.main_api import Call, MainApiError, render, renderer_for
from deeds.models import Deed
from deeds.pdf import CheckedPdf
from deeds.signals import deed_settled
from partner_api.ops import tracing

log = structlog.get_logger(__name__)


def fulfil(deed_id: uuid.UUID) -> None:
    """Does nothing when the deed is not queued, not due, or in another worker's hands."""
    deed = Deed.objects.filter(pk=deed_id).first()
    lease = deed.claim(now=timezone.now()) if deed else None
    if deed is None or lease is None:
        return
    structlog.contextvars.bind_contextvars(
        deed=str(deed.pk), partner=str(deed.partner_id), request_id=deed.request_id
    )
    try:
        checked = _rendered(deed)
    except MainApiError as error:
        _settle_error(deed, lease, error)
        return
    if not deed.renew(lease, now=timezone.now()):
        log.warning("lease_lost", step="store")
        return
    try:
        with tracing.span("storage.store"):
            name = storage.store(deed, checked.content)
    except OSError as error:
        order_metrics.STORAGE_ERRORS.labels("store").inc()
        reason = f"{type(error).__name__}: {error.strerror}"
        _settle_error(deed, lease, MainApiError("storage_unavailable", reason, is_temporary=True))
        return
    _complete(deed, lease, name, checked)


def _rendered(deed: Deed) -> CheckedPdf:
    """Raises MainApiError, also for an answer that is not the deed."""
    deed_type = DEED_TYPES[deed.deed_type]
    facts = reading.read(deed.order).order
    content = render(
        renderer_for(livemode=deed.livemode),
        Call(
            path=deed_type.path,
            body=mapping.main_api_body(deed_type, facts),
            request_id=deed.request_id,
            deed_id=str(deed.pk),
            order_id=deed.order_id,
        ),
    )
    try:
        return pdf.check(content, grantors=[party.name for party in facts.grantors], apn=facts.property.apn)
    except pdf.NotADeed as error:
        raise MainApiError("invalid_pdf", str(error), is_temporary=True) from error


def _complete(deed: Deed, lease: uuid.UUID, name: str, checked: CheckedPdf) -> None:
    with transaction.atomic():
        is_ours = deed.complete(
            lease,
            now=timezone.now(),
            name=name,
            sha256=checked.sha256,
            size=len(checked.content),
            pages=checked.pages,
        )
        if is_ours:
            _announce(deed)
    log.info("deed_completed" if is_ours else "lease_lost", attempts=deed.attempts)


def _settle_error(deed: Deed, lease: uuid.UUID, error: MainApiError) -> None:
    """Back to the queue for later where that may help, else failed."""
    now = timezone.now()
    pause = _pause_after(deed.attempts + 1, error)
    if error.is_temporary and pause is not None:
        deed.put_back(lease, now=now, next_attempt_at=now + pause, reason=error.code)
        order_metrics.DEEDS_PUT_BACK.labels(error.code).inc()
        log.warning("deed_put_back", code=error.code, reason=error.reason, pause=str(pause))
        return
    with transaction.atomic():
        is_ours = deed.fail(
            lease,
            now=now,
            code=error.code,
            message=_message_for_partner(error),
            retryable=error.is_temporary,
        )
        if is_ours:
            _announce(deed)
    log.warning("deed_failed", code=error.code, reason=error.reason)


def _pause_after(attempt: int, error: MainApiError) -> dt.timedelta | None:
    """How long to wait after the nth attempt; None when the schedule is used up."""
    schedule = settings.DEED_RETRY_SCHEDULE_SECONDS
    if attempt > len(schedule):
        return None
    seconds = schedule[attempt - 1] * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
    return dt.timedelta(seconds=max(seconds, error.retry_after or 0.0))


def _message_for_partner(error: MainApiError) -> str:
    if error.code == "main_api_rejected":
        return f"The renderer refused the order: {error.reason}"
    return f"The deed could not be rendered: {error.reason}."


def _announce(deed: Deed) -> None:
    """Inside the transaction: tells the other apps. After it: wakes the request that waits."""
    deed.refresh_from_db()
    deed_settled.send(sender=Deed, deed=deed)
    transaction.on_commit(lambda: waiting.wake(deed.pk))
