"""Sends the ledger to Stripe: each customer's meter in order, one call at a time, many of them at once.

No transaction is open during a call. A process may die after any step: the lane's lease then runs out,
the entry is sent again under the same identifier, and Stripe says that it has it.
"""

import datetime as dt
import random
import time
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import structlog
from django.conf import settings
from django.db import connection
from django.db.models import Case, CharField, F, QuerySet, Value, When
from django.db.models.functions import Greatest
from django.utils import timezone

from billing import doubts, sending, stripe_client
from billing.doubts import Doubts
from billing.models import BillingPeriod, LedgerEntry, StripeCustomer, StripeLane
from billing.models.ledger import METERED
from billing.stripe_metrics import METER_EVENTS, SEND_SECONDS

log = structlog.get_logger(__name__)

CHUNK: Final = 200
# How many are marked by one statement as about to be sent. Should we die, so many are in doubt.
_MARKED_AT_ONCE: Final = 20
State = LedgerEntry.SyncState


@dataclass
class Counts:
    accepted: int = 0
    rejected: int = 0
    faults: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.accepted + other.accepted, self.rejected + other.rejected, self.faults + other.faults
        )


@dataclass
class _Batch:
    """What a lane has done since it was last written down. `connected_at` is its customer's first moment."""

    connected_at: dt.datetime
    accepted: list[LedgerEntry] = field(default_factory=list)
    known_before: list[LedgerEntry] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def is_due(self) -> bool:
        return bool(time.monotonic() - self.started > settings.STRIPE_LANE_LEASE_SECONDS / 4)


@dataclass
class _Visit:
    """One claim of a lane, and what all of its entries share."""

    lane: StripeLane
    lease: uuid.UUID
    route: sending.Route
    in_doubt: Doubts
    counts: Counts
    invoice_id: str


def sync() -> Counts:
    """Sends all that is pending and due, for STRIPE_SYNC_RUN_SECONDS at most."""
    if not stripe_client.is_configured():
        return Counts()
    return _run(LedgerEntry.objects.pending(), is_urgent=False)


def flush(partner_id: uuid.UUID, *, invoice_id: str = "") -> int:
    """Sends all that one partner has pending, without waiting for a pause to end; how many are left.

    Corrections go on the draft `invoice_id` rather than on the next invoice.
    """
    own = LedgerEntry.objects.pending().filter(partner=partner_id)
    _run(own, is_urgent=True, invoice_id=invoice_id)
    return own.count()


def _run(entries: QuerySet[LedgerEntry], *, is_urgent: bool, invoice_id: str = "") -> Counts:
    deadline = time.monotonic() + settings.STRIPE_SYNC_RUN_SECONDS
    lanes = list(_lanes(entries))
    if not lanes:
        return Counts()

    def serve(lane: StripeLane) -> Counts:
        try:
            return _serve(lane, deadline=deadline, is_urgent=is_urgent, invoice_id=invoice_id)
        finally:
            connection.close()

    workers = min(settings.STRIPE_SYNC_THREADS, len(lanes))
    if workers == 1 or connection.in_atomic_block:
        return sum(
            (_serve(lane, deadline=deadline, is_urgent=is_urgent, invoice_id=invoice_id) for lane in lanes),
            Counts(),
        )
    with ThreadPoolExecutor(workers, thread_name_prefix="stripe-lane") as pool:
        counts = sum(pool.map(serve, lanes), Counts())
    if counts != Counts():
        log.info("ledger_synced", lanes=len(lanes), **vars(counts))
    return counts


def _lanes(entries: QuerySet[LedgerEntry]) -> Iterable[StripeLane]:
    """The lanes that have something to send."""
    at_stripe = StripeCustomer.objects.filter(is_deleted=False).values("partner")
    meter = Case(When(kind__in=METERED, then=F("item")), default=Value(""), output_field=CharField())
    wanted = entries.filter(partner__in=at_stripe).annotate(lane=meter).values_list("partner", "lane")
    for partner_id, item in wanted.distinct():
        yield StripeLane.objects.get_or_create(partner_id=partner_id, item=item)[0]


def _serve(lane: StripeLane, *, deadline: float, is_urgent: bool, invoice_id: str) -> Counts:
    """Sends a lane's entries in order, until there are none, time is up, or something is wrong."""
    lease = lane.claim(now=timezone.now(), is_urgent=is_urgent)
    counts = Counts()
    route = sending.Route.of(lane.partner_id) if lease else None
    if lease is None or route is None:
        return counts
    _leave_to_us(lane, route)
    visit = _Visit(lane, lease, route, Doubts(route), counts, invoice_id)
    while time.monotonic() < deadline:
        chunk = list(_of_lane(lane)[:CHUNK])
        if not chunk:
            break
        if not _serve_chunk(visit, chunk):
            return counts
    lane.leave(lease)
    return counts


def _leave_to_us(lane: StripeLane, route: sending.Route) -> None:
    """What our own invoices have, Stripe must not: that of periods which ended before Stripe billed any."""
    pending = LedgerEntry.objects.pending().filter(partner=lane.partner_id)
    ended = BillingPeriod.objects.filter(
        partner=lane.partner_id, ends_at__lte=timezone.now(), pk__in=pending.values("period")
    )
    ours = [period.pk for period in ended if not route.billers.is_stripe(period)]
    if ours:
        left = pending.filter(period__in=ours).update(sync_state=State.NOT_BILLABLE)
        log.info("ledger_entries_billed_by_us", partner=str(lane.partner_id), entries=left)


def _serve_chunk(visit: _Visit, chunk: list[LedgerEntry]) -> bool:
    """False when the lane was left: paused, or lost to another."""
    lane, lease, counts = visit.lane, visit.lease, visit.counts
    batch = _Batch(visit.route.customer.connected_at)
    for number, entry in enumerate(chunk):
        if number % _MARKED_AT_ONCE == 0:
            _mark(chunk[number : number + _MARKED_AT_ONCE])
        try:
            with SEND_SECONDS.time():
                _send(entry, visit, batch)
        except sending.Rejected as rejected:
            _reject(entry, rejected)
            counts.rejected += 1
            continue
        except sending.Wait as wait:
            _write(batch, counts)
            _note_error(entry, wait.reason)
            lane.pause(lease, until=wait.until, error=wait.reason)
            return False
        except stripe_client.StripeFault as fault:
            _write(batch, counts)
            _note_error(entry, fault.code)
            _back_off(lane, lease, fault)
            counts.faults += 1
            METER_EVENTS.labels(type(fault).__name__.lower()).inc()
            return False
        if batch.is_due():
            _write(batch, counts)
            batch.started = time.monotonic()
            if not lane.renew(lease, now=timezone.now()):
                log.warning("lane_lost", lane=str(lane))
                return False
    _write(batch, counts)
    return lane.renew(lease, now=timezone.now())


def _of_lane(lane: StripeLane) -> QuerySet[LedgerEntry]:
    own = LedgerEntry.objects.pending().filter(partner=lane.partner_id)
    own = own.filter(kind__in=METERED, item=lane.item) if lane.item else own.exclude(kind__in=METERED)
    return own.select_related("period").order_by("id")


def _send(entry: LedgerEntry, visit: _Visit, batch: _Batch) -> None:
    """Sends it, unless an earlier attempt is found at Stripe. Raises Rejected, Wait, StripeFault."""

    def is_counted() -> bool:
        _write(batch, visit.counts)
        return visit.in_doubt.is_counted(entry)

    if doubts.may_be_forgotten(entry) and is_counted():
        entry.stripe_identifier, is_known = sending.identity(entry, visit.route.customer), True
    else:
        try:
            entry.stripe_identifier, is_known = sending.send(entry, visit.route, invoice_id=visit.invoice_id)
        except sending.Rejected:
            if not (doubts.is_in_doubt(entry) and is_counted()):
                raise
            entry.stripe_identifier, is_known = sending.identity(entry, visit.route.customer), True
    batch.accepted.append(entry)
    if is_known:
        batch.known_before.append(entry)


def _mark(entries: list[LedgerEntry]) -> None:
    """Before the first call: should we die in it, the next run knows that there may have been one.

    Those in doubt stay as they are: they are in doubt since their first attempt.
    """
    certain = [entry.pk for entry in entries if not doubts.is_in_doubt(entry)]
    LedgerEntry.objects.filter(pk__in=certain).update(
        sync_attempts=F("sync_attempts") + 1, sync_error="", next_sync_at=timezone.now()
    )


def _note_error(entry: LedgerEntry, error: str) -> None:
    """A doubt is not ended by a later attempt that is known to have failed."""
    changes = {} if doubts.is_in_doubt(entry) else {"sync_error": error[:500], "next_sync_at": timezone.now()}
    LedgerEntry.objects.filter(pk=entry.pk, sync_state=State.PENDING).update(
        sync_attempts=F("sync_attempts") + 1, **changes
    )


def _write(batch: _Batch, counts: Counts) -> None:
    """One statement for the whole batch, but for the few of another kind."""
    if not batch.accepted:
        return
    now = timezone.now()
    accepted = {"sync_state": State.ACCEPTED, "sync_error": ""}
    known = {entry.pk for entry in batch.known_before}
    usual = [entry.pk for entry in batch.accepted if entry.stripe_identifier == str(entry.pk)]
    new = [pk for pk in usual if pk not in known]
    then = Greatest("next_sync_at", Value(batch.connected_at))
    for ids, synced_at in ((new, now), (list(known.intersection(usual)), then)):
        if ids:
            LedgerEntry.objects.filter(pk__in=ids, sync_state=State.PENDING).update(
                stripe_identifier=F("id"), synced_at=synced_at, **accepted
            )
    for entry in batch.accepted:
        if entry.stripe_identifier != str(entry.pk):
            LedgerEntry.objects.filter(pk=entry.pk, sync_state=State.PENDING).update(
                stripe_identifier=entry.stripe_identifier,
                synced_at=then if entry.pk in known else now,
                **accepted,
            )
    counts.accepted += len(batch.accepted)
    METER_EVENTS.labels("accepted").inc(len(batch.accepted))
    batch.accepted = []
    batch.known_before = []


def _reject(entry: LedgerEntry, rejected: sending.Rejected) -> None:
    LedgerEntry.objects.filter(pk=entry.pk, sync_state=State.PENDING).update(
        sync_state=State.REJECTED,
        sync_attempts=F("sync_attempts") + 1,
        sync_error=str(rejected)[:500],
        next_sync_at=timezone.now(),
    )
    METER_EVENTS.labels("rejected").inc()
    log.error("ledger_entry_rejected", entry=str(entry.pk), code=rejected.code)


def _back_off(lane: StripeLane, lease: uuid.UUID, fault: stripe_client.StripeFault) -> None:
    """Exponential with jitter; what needs a person waits longest."""
    ceiling = settings.STRIPE_BACKOFF_MAX_SECONDS
    if isinstance(fault, stripe_client.Busy):
        ceiling = min(60, ceiling)
    needs_staff = isinstance(fault, stripe_client.Misconfigured | stripe_client.Refused)
    doubled = ceiling if needs_staff else min(ceiling, 2 ** min(lane.failures, 16))
    pause = doubled * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
    lane.pause(lease, until=timezone.now() + dt.timedelta(seconds=pause), error=str(fault))
    report = log.error if needs_staff else log.warning
    report("stripe_lane_paused", lane=str(lane), code=fault.code, pause_seconds=round(pause, 1))
