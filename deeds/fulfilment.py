"""Makes a deed that is queued: claim, render, check, store, complete.

No transaction is open while the Main API or the storage is called. A process may die after any step:
the lease then runs out, the sweeper queues the deed again, and a repeated step overwrites its own
result. A worker that is stopped gives its deed back.
"""

import datetime as dt
import itertools
import random
import uuid

import structlog
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from billing import ledger, quotas
from deeds import (
    attempts,
    charges,
    circuit,
    heartbeat,
    hints,
    line,
    mapping,
    metrics,
    pdf,
    reading,
    refusals,
    replacing,
    storage,
    waiting,
)
from deeds.catalog import DEED_TYPES
from deeds.circuit import Admission
from deeds.main_api import Call, MainApiError, Rendering, Said, render, renderer_for
from deeds.models import Deed
from deeds.models.own_deed import own_deed
from deeds.pdf import CheckedPdf
from deeds.signals import deed_settled
from deeds.storage import StoreUnavailable
from partner_api.ops import tracing

log = structlog.get_logger(__name__)


def serve(*, is_bulk: bool, hinted: uuid.UUID | None = None) -> bool:
    """Makes the deed whose turn it is, which need not be the hinted one. False when none is due."""
    now = timezone.now()
    modes: list[bool] = []
    others: list[bool] = []
    for livemode in (True, False):
        admission = circuit.admit(renderer_for(livemode=livemode))
        if admission is Admission.PROBE and _probe(livemode=livemode, now=now):
            if hinted is not None:
                line.forget_a_hint(is_bulk=is_bulk, modes=[livemode])
            return True
        (modes if admission is Admission.CLOSED else others).append(livemode)
    claimed = line.claim_next(is_bulk=is_bulk, modes=modes, now=now)
    if claimed is not None:
        _make(*claimed)
        return True
    if hinted is not None and others:
        line.forget_a_hint(is_bulk=is_bulk, modes=others)
    return False


def fulfil(deed_id: uuid.UUID) -> None:
    """Makes this very deed. Does nothing when it is not queued, not due, or in another worker's hands."""
    deed = Deed.objects.filter(pk=deed_id).first()
    if deed is None:
        return
    renderer = renderer_for(livemode=deed.livemode)
    admission = circuit.admit(renderer)
    if admission is Admission.OPEN:
        line.forget_a_hint(is_bulk=deed.is_bulk, modes=[deed.livemode])
        return
    lease = deed.claim(now=timezone.now())
    if lease is not None:
        deed.refresh_from_db()
        _make(deed, lease, is_probe=admission is Admission.PROBE)
    elif admission is Admission.PROBE:
        circuit.hand_back(renderer)


def _probe(*, livemode: bool, now: dt.datetime) -> bool:
    """One call to a renderer that was away, by a deed that waits for it. False when none does.

    An untried one, where there is one: should it be the others at which the renderer breaks, they must not
    be what tells whether it is back.
    """
    for is_untried, is_bulk in itertools.product((True, False), (False, True)):
        claimed = line.claim_next(
            is_bulk=is_bulk, modes=[livemode], now=now, is_probe=True, is_untried=is_untried
        )
        if claimed is not None:
            _make(*claimed, is_probe=True)
            return True
    circuit.hand_back(renderer_for(livemode=livemode))
    return False


def _make(deed: Deed, lease: uuid.UUID, *, is_probe: bool = False) -> None:
    structlog.contextvars.bind_contextvars(
        deed=str(deed.pk), partner=str(deed.partner_id), request_id=deed.request_id
    )
    try:
        with heartbeat.beating(deed, lease):
            _render_and_store(deed, lease, is_probe=is_probe)
    except (SystemExit, KeyboardInterrupt):
        now = timezone.now()
        if deed.give_back(lease, now=now, is_counted=not is_probe):
            log.warning("deed_given_back")
            hints.hint(deed.pk, is_bulk=deed.is_bulk)
        raise
    except Exception as error:
        # A fault of ours, or of what we stand on. Its cause is noted, and the deed tried again: the
        # sweeper counts it as a crash, so that it can't go on for ever.
        now = timezone.now()
        attempts.note(deed, "worker_broke", now=now, reason=type(error).__name__)
        deed.abandon(lease, now=now)
        raise


def _render_and_store(deed: Deed, lease: uuid.UUID, *, is_probe: bool) -> None:
    try:
        checked, said = _rendered(deed, is_probe=is_probe)
    except MainApiError as error:
        _settle_error(deed, lease, error, is_probe=is_probe)
        return
    # The heartbeat renews it; whoever lost it must not store.
    if not deed.is_held(lease):
        log.warning("lease_lost", step="store")
        return
    try:
        with tracing.span("storage.store"):
            kept = _kept(deed, checked)
    except StoreUnavailable as error:
        metrics.STORAGE_ERRORS.labels("store").inc()
        unavailable = MainApiError("storage_unavailable", str(error), is_temporary=True, said=said)
        _settle_error(deed, lease, unavailable)
        return
    _complete(deed, lease, storage.name_of(deed), kept, said)


def _rendered(deed: Deed, *, is_probe: bool) -> tuple[CheckedPdf, Said]:
    """Raises MainApiError, also for an answer that is not the deed."""
    deed_type = DEED_TYPES[deed.deed_type]
    facts = reading.read(deed.order).order
    call = Call(
        path=deed_type.path,
        body=mapping.main_api_body(deed_type, facts),
        request_id=deed.request_id,
        partner_id=str(deed.partner_id),
        deed_id=str(deed.pk),
        order_id=deed.order_id,
    )
    rendering = _called(deed, call, is_probe=is_probe)
    try:
        checked = _checked(deed, rendering.content)
    except pdf.NotADeed as error:
        raise MainApiError("invalid_pdf", str(error), is_temporary=True, said=rendering.said) from error
    return checked, rendering.said


def _called(deed: Deed, call: Call, *, is_probe: bool) -> Rendering:
    """The call itself; tells the circuit how it went, and releases those who waited once it closes."""
    renderer = renderer_for(livemode=deed.livemode)
    try:
        # A probe only looks whether the renderer is back; it asks once.
        rendering = render(renderer, call, attempts=1 if is_probe else None)
    except MainApiError as error:
        circuit.failed(renderer, error, is_probe=is_probe)
        if not error.is_outage:
            _note_that_it_answers(deed)
        raise
    _note_that_it_answers(deed)
    return rendering


def _note_that_it_answers(deed: Deed) -> None:
    """Any answer that is no outage closes the circuit; who waited for that is due at once."""
    if circuit.succeeded(renderer_for(livemode=deed.livemode)):
        released = line.release(livemode=deed.livemode, now=timezone.now())
        log.info("deeds_released", count=released)
        hints.sweep_now()


def _kept(deed: Deed, checked: CheckedPdf) -> CheckedPdf:
    """The PDF that the storage has now. Raises StoreUnavailable.

    An attempt that died after storing left one, which need not be the same to the byte. It stays, so
    that no PDF ever changes under a row that tells its hash; unless it is not this deed.
    """
    if storage.keep(deed, checked.content):
        return checked
    try:
        earlier = _checked(deed, storage.read(deed) or b"")
    except pdf.NotADeed as error:
        log.error("stored_pdf_replaced", reason=str(error))  # noqa: TRY400 - the trace says no more
        storage.keep(deed, checked.content, replace=True)
        return checked
    log.info("stored_pdf_adopted")
    return earlier


def _checked(deed: Deed, content: bytes) -> CheckedPdf:
    """Raises NotADeed."""
    facts = reading.read(deed.order).order
    return pdf.check(content, grantors=[party.name for party in facts.grantors], apn=facts.property.apn)


def _complete(deed: Deed, lease: uuid.UUID, name: str, checked: CheckedPdf, said: Said) -> None:
    now = timezone.now()
    with transaction.atomic():
        is_ours = deed.complete(
            lease,
            now=now,
            name=name,
            sha256=checked.sha256,
            size=len(checked.content),
            pages=checked.pages,
        )
        if is_ours:
            _note(deed, "completed", now=now, said=said)
            ledger.charge(charges.facts_of(deed, completed_at=now))
            _announce(deed)
    log.info("deed_completed" if is_ours else "lease_lost", attempts=deed.attempts)


def _settle_error(deed: Deed, lease: uuid.UUID, error: MainApiError, *, is_probe: bool = False) -> None:
    """Back to the queue for later where that may help, else failed."""
    now = timezone.now()
    reason = refusals.without_facts(error.reason, deed.order)
    pause = _pause_after(deed, error, now=now, is_probe=is_probe)
    if error.is_temporary and pause is not None:
        with transaction.atomic():
            if deed.put_back(lease, now=now, next_attempt_at=now + pause, reason=error.code):
                _note(deed, error.code, now=now, said=error.said, reason=reason)
        metrics.DEEDS_PUT_BACK.labels(error.code).inc()
        log.warning("deed_put_back", code=error.code, reason=reason, pause=str(pause))
        return
    with transaction.atomic():
        is_ours = deed.fail(
            lease,
            now=now,
            code=error.code,
            message=_message_for_partner(error),
            retryable=error.is_temporary,
            errors=refusals.errors_of(error.detail),
        )
        if is_ours:
            _note(deed, error.code, now=now, said=error.said, reason=reason)
            quotas.release(deed.pk)
            replacing.reinstate(deed)
            _announce(deed)
    log.warning("deed_failed", code=error.code, reason=reason)


def _pause_after(deed: Deed, error: MainApiError, *, now: dt.datetime, is_probe: bool) -> dt.timedelta | None:
    """How long to wait after this attempt; None when the schedule, or its time, is used up."""
    schedule = settings.DEED_RETRY_SCHEDULE_SECONDS
    # A probe is an attempt of ours, not of the deed, which waits for the renderer as long as it may.
    is_over = now - deed.waiting_since > dt.timedelta(seconds=sum(schedule))
    if is_over if is_probe else deed.attempts > len(schedule):
        return None
    seconds = schedule[max(0, min(deed.attempts, len(schedule)) - 1)] * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
    return dt.timedelta(seconds=max(seconds, error.retry_after or 0.0))


def _message_for_partner(error: MainApiError) -> str:
    if error.code == "main_api_rejected":
        return f"The renderer refused the order: {error.reason}"
    return f"The deed could not be rendered: {error.reason}."


def _note(deed: Deed, outcome: str, *, now: dt.datetime, said: Said, reason: str = "") -> None:
    attempts.note(deed, outcome, now=now, said=said, reason=reason)


def _announce(deed: Deed) -> None:
    """Inside the transaction: tells the other apps. After it: wakes the request that waits."""
    settled = own_deed(deed.partner_id, livemode=deed.livemode, deed_id=deed.pk)
    if settled is not None:
        settled.partner = deed.partner
        deed_settled.send(sender=Deed, deed=settled)
    transaction.on_commit(lambda: waiting.wake(deed.pk))
