"""Takes what sources send: stored as it came, answered, and only then made an order like any other.

An event is known by its source and identity, which the database holds unique: sent a hundred times at
once or once more after a month, it is stored and done once.
"""

import datetime as dt
import hashlib
import json
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog
import uuid_utils.compat
from django.conf import settings
from django.db import transaction
from django.db.models import Window
from django.db.models.functions import RowNumber
from django.utils import timezone

from billing import quotas
from deeds import ordering
from deeds.models import Deed
from deeds.reading import Reading
from keys.models import Partner
from partner_api import prepared
from partner_api.http import parsing
from partner_api.http.problems import Problem
from partner_api.ops import vault
from partner_api.slots import slot
from webhooks import door, hints, metrics, verification
from webhooks.models import InboundEvent
from webhooks.systems import SYSTEMS
from webhooks.verification import Known

log = structlog.get_logger(__name__)

MAX_IDENTITY: Final = 200
_VISIBLE: Final = re.compile(r"[!-~]+")
_BATCH: Final = 50
_WORK: Final = 0x696E6264  # "inbd"
_KEPT_HEADERS: Final = ("Content-Type", "X-Webhook-Id", "X-Webhook-Timestamp", "User-Agent")
_UNPROCESSABLE: Final = 422
# Refusals that end when the partner pays, the period ends or staff allow more.
_MONEY: Final = frozenset(quotas.PROBLEMS)
_MONEY_PAUSE: Final = dt.timedelta(minutes=15)
# What is said of one order is true of the partner's others.
_OF_ALL: Final = frozenset({"queue_full", "quota_exceeded", "payment_required"})

_STORE: Final = """
    INSERT INTO webhook_inbound_events
        (id, source_id, identity, body, headers, request_id, received_at, status, attempts,
         corrected_body, reason_code, reason, errors)
    VALUES (%s, %s, %s, %s, %s, %s, %s, 'received', 0, '', '', '', '[]')
    ON CONFLICT (source_id, identity) DO NOTHING
"""


@dataclass(frozen=True)
class Acceptance:
    """The event that stands for a request, and whether this request made it."""

    id: uuid.UUID
    received_at: dt.datetime
    is_new: bool


def accept(system: str, headers: Mapping[str, str], body: bytes, *, request_id: str) -> Acceptance:
    """Stores a request that one of the system's sources signed.

    Raises Problem: `invalid_signature`, `stale_signature`, `partner_suspended`, `rate_limited`,
    `bad_request`.
    """
    now = timezone.now()
    try:
        source = verification.source_of(system, headers, body, now=now)
        structlog.contextvars.bind_contextvars(partner=str(source.partner_id), source=str(source.id))
        door.count_source(source.id)
        _refuse_suspended(is_suspended=source.is_suspended)
        identity = _identity(headers, body)
    except Problem as problem:
        metrics.inbound.labels(system, problem.code).inc()
        raise
    acceptance = _store(source, identity, headers, body, request_id=request_id, now=now)
    metrics.inbound.labels(system, "accepted" if acceptance.is_new else "repeated").inc()
    if acceptance.is_new:
        hints.hint_soon(hints.PROCESS)
    return acceptance


def process_waiting() -> int:
    """Makes orders of what waits; how many were looked at.

    One worker does at a time, and not for long: thousands that came at once must not keep all workers from
    bringing out the news, nor one source's the others' waiting. It ends with a hint while something is left.
    """
    ends_at = time.monotonic() + settings.WEBHOOKS_PROCESS_SECONDS
    looked_at = 0
    with slot(_WORK, of=1) as is_ours:
        if not is_ours:
            return 0
        while time.monotonic() < ends_at and (events := _by_turns(timezone.now())):
            for event in events:
                if event.claim(now=timezone.now()):
                    process(event)
            looked_at += len(events)
    # Whoever found the place taken while it was being left relied on us.
    if InboundEvent.objects.waiting(timezone.now()).exists():
        hints.hint(hints.PROCESS)
    return looked_at


def process(event: InboundEvent) -> None:
    """An order for an event that was claimed, a later time for it, or the reason why there is none."""
    with structlog.contextvars.bound_contextvars(
        inbound_event=str(event.pk), partner=str(event.source.partner_id), request_id=event.request_id
    ):
        try:
            _refuse_hopeless(event)
            _place(event, reading_of(event))
        except Problem as problem:
            if problem.after_undoing is not None:
                problem.after_undoing()
            now = timezone.now()
            pause = _pause_after(problem, event, now)
            if pause is None:
                _set_aside(event, problem, now)
            else:
                _postpone(event, problem.code, now, now + pause)


def reading_of(event: InboundEvent) -> Reading:
    """The order that an event's text means today. Raises Problem."""
    return SYSTEMS[event.source.system].read(parsing.loads(event.text))


def _by_turns(now: dt.datetime) -> list[InboundEvent]:
    """The oldest of each source, then the second of each, and so on."""
    turn = Window(RowNumber(), partition_by="source", order_by=("received_at", "id"))
    waiting = InboundEvent.objects.waiting(now).annotate(turn=turn).order_by("turn", "received_at", "id")
    # Only the ids are sorted: the bodies of all that waits may be many.
    ids = list(waiting.values_list("pk", flat=True)[:_BATCH])
    found = InboundEvent.objects.select_related("source__partner").in_bulk(ids)
    return [found[pk] for pk in ids if pk in found]


def _refuse_hopeless(event: InboundEvent) -> None:
    if event.attempts > settings.DEED_MAX_CRASHES:
        raise Problem("internal_error", "Processing it ended its worker again and again.")
    _refuse_suspended(is_suspended=event.source.partner.status != Partner.Status.ACTIVE)


def _refuse_suspended(*, is_suspended: bool) -> None:
    if is_suspended:
        raise Problem(
            "partner_suspended", "This partner's account is suspended; nothing is accepted from its sources."
        )


def _pause_after(problem: Problem, event: InboundEvent, now: dt.datetime) -> dt.timedelta | None:
    """For how long an event waits that may be an order later; None for one that needs a person."""
    if problem.code in _MONEY:
        patience = dt.timedelta(hours=settings.WEBHOOKS_INBOUND_PATIENCE_HOURS)
        return _MONEY_PAUSE if now < event.received_at + patience else None
    seconds = problem.headers.get("Retry-After")
    return None if seconds is None else dt.timedelta(seconds=int(seconds))


def _postpone(event: InboundEvent, code: str, now: dt.datetime, until: dt.datetime) -> None:
    if not event.postpone(until=until, code=code):
        log.info("lease_lost")
        return
    log.info("inbound_postponed", code=code)
    if code in _OF_ALL:
        # Each of thousands would be refused by itself, and with it the database kept busy.
        InboundEvent.objects.ready(now).filter(source=event.source).update(not_before=until, waits_for=code)


def _set_aside(event: InboundEvent, problem: Problem, now: dt.datetime) -> None:
    is_ours = event.set_aside(
        now=now,
        status=_UNPROCESSABLE if problem.code == "malformed_json" else problem.status,
        code=problem.code,
        reason=problem.detail,
        errors=[error.as_dict() for error in problem.errors],
    )
    if is_ours:
        log.warning("inbound_needs_attention", code=problem.code)
    else:
        log.info("lease_lost")


def _place(event: InboundEvent, order: Reading) -> None:
    """The order and the event's end in one transaction: a worker that dies leaves both or neither."""
    with transaction.atomic():
        deed = ordering.place_read(_origin(event), order).deed
        is_ours = event.finish(deed, now=timezone.now())
        if not is_ours:
            transaction.set_rollback(True)
    log.info("inbound_processed" if is_ours else "lease_lost", deed=str(deed.pk))


def _origin(event: InboundEvent) -> ordering.Origin:
    source = event.source
    return ordering.Origin(
        partner=source.partner,
        api_key=None,
        source=Deed.Source.WEBHOOK,
        request_id=event.request_id,
        is_live=source.livemode,
    )


def _identity(headers: Mapping[str, str], body: bytes) -> str:
    """Raises Problem `bad_request`."""
    given = headers.get("X-Webhook-Id")
    if given is None:
        return f"sha256:{hashlib.sha256(body).hexdigest()}"
    if len(given) > MAX_IDENTITY or not _VISIBLE.fullmatch(given):
        raise Problem("bad_request", f"X-Webhook-Id must have 1 to {MAX_IDENTITY} visible characters.")
    return f"id:{given}"


def _store(
    source: Known,
    identity: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    request_id: str,
    now: dt.datetime,
) -> Acceptance:
    """One statement for a new event, a second one to find what was there."""
    event_id = uuid_utils.compat.uuid7()
    kept = {name: headers[name][:MAX_IDENTITY] for name in _KEPT_HEADERS if name in headers}
    with prepared.cursor() as cursor:
        sealed = vault.encrypt_bytes(body)
        cursor.execute(_STORE, [event_id, source.id, identity, sealed, json.dumps(kept), request_id, now])
        if cursor.rowcount == 1:
            return Acceptance(event_id, now, is_new=True)
    first = InboundEvent.objects.only("id", "received_at").get(source_id=source.id, identity=identity)
    return Acceptance(first.pk, first.received_at, is_new=False)
