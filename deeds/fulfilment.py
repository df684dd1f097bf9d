"""Makes a deed that is queued: claim, render, check, store, complete.

No transaction is open while the Main API or the storage is called. A process may die after any step:
the lease then runs out, the sweeper queues the deed again, and a repeated step overwrites its own
result. A worker that is stopped gives its deed back.
"""

import datetime as dt
import itertools
import uuid
from contextlib import ExitStack, suppress
from typing import Final

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError
from django.utils import timezone

from deeds import (
    attempts,
    circuit,
    heartbeat,
    hints,
    line,
    mapping,
    metrics,
    outcomes,
    pdf,
    reading,
    storage,
)
from deeds.catalog import DEED_TYPES
from deeds.circuit import Admission
from deeds.main_api import Call, MainApiError, Rendering, render, renderer_for
from deeds.models import Deed
from deeds.order import Order
from deeds.pdf import CheckedPdf
from deeds.said import Said
from deeds.stores import StoreUnavailable
from partner_api.http.problems import Problem
from partner_api.ops import tracing
from partner_api.slots import slot

log = structlog.get_logger(__name__)

# Tells this work's places from those of other work that is counted by `slot`.
_TEST_DEEDS: Final = 0x7E57


def serve(*, is_bulk: bool, hinted: uuid.UUID | None = None) -> bool:
    """Makes the deed whose turn it is, which need not be the hinted one. False when none is due.

    Test deeds have DEED_TEST_AT_ONCE places among all workers: the faults that can be ordered of the sandbox
    must not keep live deeds waiting.
    """
    now = timezone.now()
    modes: list[bool] = []
    others: list[bool] = []
    with ExitStack() as place:
        has_place = place.enter_context(slot(_TEST_DEEDS, of=settings.DEED_TEST_AT_ONCE))
        for livemode in (True, False) if has_place else (True,):
            admission = circuit.admit(renderer_for(livemode=livemode))
            if admission is Admission.PROBE and _probe(livemode=livemode, now=now):
                if hinted is not None:
                    line.forget_a_hint(is_bulk=is_bulk, modes=[livemode])
                return True
            (modes if admission is Admission.CLOSED else others).append(livemode)
        if not has_place:
            others.append(False)
        claimed = line.claim_next(is_bulk=is_bulk, modes=modes, now=now)
        if claimed is not None:
            if claimed[0].livemode:
                place.close()
            _make(*claimed)
    if claimed is None:
        if hinted is not None and others:
            line.forget_a_hint(is_bulk=is_bulk, modes=others)
        return False
    if not claimed[0].livemode:
        _pass_the_place_on(is_bulk=is_bulk)
    return True


def _pass_the_place_on(*, is_bulk: bool) -> None:
    """Hints again at a test deed whose message was used up while there was no place for it."""
    deed_id = line.take_up_a_hint(livemode=False, is_bulk=is_bulk, now=timezone.now())
    if deed_id is not None:
        hints.hint(deed_id, is_bulk=is_bulk)


def _probe(*, livemode: bool, now: dt.datetime) -> bool:
    """One call to a renderer that was away, by a deed that waits for it. False when none does.

    An untried one, where there is one: should it be the others at which the renderer breaks, they must not
    be what tells whether it is back.
    """
    lines = itertools.product((True, False), (False, True)) if line.is_used(livemode=livemode) else ()
    for is_untried, is_bulk in lines:
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
            _work(deed, lease, is_probe=is_probe)
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
        if isinstance(error, (DatabaseError, InterfaceError)):
            heartbeat.reconnect()
        # Where the database is what is away, the lease runs out by itself.
        with suppress(DatabaseError, InterfaceError):
            attempts.note(deed, "worker_broke", now=now, reason=type(error).__name__)
            deed.abandon(lease, now=now)
        raise


def _work(deed: Deed, lease: uuid.UUID, *, is_probe: bool) -> None:
    try:
        facts = reading.read(deed.order).order
    except Problem as problem:
        # Accepted by an earlier version, whose checks were less strict.
        if is_probe:
            circuit.hand_back(renderer_for(livemode=deed.livemode))
        outcomes.refused_by_us(deed, lease, problem)
        return
    try:
        made = _render_and_store(deed, lease, facts, is_probe=is_probe)
    except MainApiError as error:
        outcomes.went_wrong(deed, lease, error, is_probe=is_probe)
        return
    if made is not None:
        outcomes.completed(deed, lease, *made)


def _render_and_store(
    deed: Deed, lease: uuid.UUID, facts: Order, *, is_probe: bool
) -> tuple[CheckedPdf, Said] | None:
    """The PDF that is stored now. None when the lease was lost. Raises MainApiError."""
    checked, said = rendered(deed, facts, is_probe=is_probe)
    # The heartbeat renews it; whoever lost it must not store.
    if not _is_held(deed, lease):
        log.warning("lease_lost", step="store")
        return None
    try:
        with tracing.span("storage.store"):
            return _kept(deed, facts, checked), said
    except StoreUnavailable as error:
        metrics.STORAGE_ERRORS.labels("store").inc()
        raise MainApiError("storage_unavailable", str(error), is_temporary=True, said=said) from error


def _is_held(deed: Deed, lease: uuid.UUID) -> bool:
    """The first query after a call that may have outlasted the database's connections."""
    try:
        return deed.is_held(lease)
    except (DatabaseError, InterfaceError) as error:
        log.warning("database_reconnected", reason=type(error).__name__)
        heartbeat.reconnect()
        return deed.is_held(lease)


def rendered(deed: Deed, facts: Order, *, is_probe: bool) -> tuple[CheckedPdf, Said]:
    """What the renderer makes of the facts. Raises MainApiError, also for an answer that is not the deed.

    A probe asks once.
    """
    deed_type = DEED_TYPES[deed.deed_type]
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
        checked = _checked(facts, rendering.content)
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


def _kept(deed: Deed, facts: Order, checked: CheckedPdf) -> CheckedPdf:
    """The PDF that the storage has now. Raises StoreUnavailable.

    An attempt that died after storing left one, which need not be the same to the byte. It stays, so
    that no PDF ever changes under a row that tells its hash; unless it is not this deed.
    """
    if storage.keep(deed, checked.content):
        return checked
    try:
        earlier = _checked(facts, storage.read(deed) or b"")
    except pdf.NotADeed as error:
        log.error("stored_pdf_replaced", reason=str(error))  # noqa: TRY400 - the trace says no more
        storage.keep(deed, checked.content, replace=True)
        return checked
    log.info("stored_pdf_adopted")
    return earlier


def _checked(facts: Order, content: bytes) -> CheckedPdf:
    """Raises NotADeed."""
    return pdf.check(content, grantors=[party.name for party in facts.grantors], apn=facts.property.apn)
