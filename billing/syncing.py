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
from django.db.models import Case, CharField, F, QuerySet, Sum, Value, When
from django.utils import timezone

from billing import sending, stripe_client, stripe_prices
from billing.models import LedgerEntry, StripeCustomer, StripeLane
from billing.stripe_client import metering
from billing.stripe_metrics import METER_EVENTS, SEND_SECONDS

log = structlog.get_logger(__name__)

CHUNK: Final = 200
_UNKNOWN_OUTCOMES: Final = ("", "no_answer", "status_")
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
    """What a lane has done since it was last written down."""

    accepted: list[LedgerEntry] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def is_due(self) -> bool:
        return bool(time.monotonic() - self.started > settings.STRIPE_LANE_LEASE_SECONDS / 4)


def sync(*, now: dt.datetime | None = None) -> Counts:
    """Sends all that is pending and due, for STRIPE_SYNC_RUN_SECONDS at most."""
    if not stripe_client.is_configured():
        return Counts()
    return _run(pending(), now=now or timezone.now(), is_urgent=False)


def flush(partner_id: uuid.UUID, *, invoice_id: str = "") -> int:
    """Sends all that one partner has pending, without waiting for a pause to end; how many are left.

    Corrections go on the draft `invoice_id` rather than on the next invoice.
    """
    own = pending().filter(partner=partner_id)
    _run(own, now=timezone.now(), is_urgent=True, invoice_id=invoice_id)
    return own.count()


def pending() -> QuerySet[LedgerEntry]:
    return LedgerEntry.objects.filter(sync_state=State.PENDING)


def _run(
    entries: QuerySet[LedgerEntry], *, now: dt.datetime, is_urgent: bool, invoice_id: str = ""
) -> Counts:
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
    """The lanes that have something to send, those that wait longest first."""
    at_stripe = StripeCustomer.objects.filter(is_deleted=False).values("partner")
    meter = Case(When(kind__in=sending.METERED, then=F("item")), default=Value(""), output_field=CharField())
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
    while time.monotonic() < deadline:
        chunk = list(_of_lane(lane)[:CHUNK])
        if not chunk:
            break
        if not _serve_chunk(lane, lease, chunk, route, counts, invoice_id=invoice_id):
            return counts
    lane.leave(lease)
    return counts


def _serve_chunk(
    lane: StripeLane,
    lease: uuid.UUID,
    chunk: list[LedgerEntry],
    route: sending.Route,
    counts: Counts,
    *,
    invoice_id: str,
) -> bool:
    """False when the lane was left: paused, or lost to another."""
    first_attempts = [entry.pk for entry in chunk if not entry.sync_attempts]
    _note_attempts(first_attempts)
    batch = _Batch()
    for entry in chunk:
        try:
            with SEND_SECONDS.time():
                _send(entry, route, invoice_id)
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
        batch.accepted.append(entry)
        if batch.is_due():
            _write(batch, counts)
            batch = _Batch()
            if not lane.renew(lease, now=timezone.now()):
                log.warning("lane_lost", lane=str(lane))
                return False
    _write(batch, counts)
    return lane.renew(lease, now=timezone.now())


def _of_lane(lane: StripeLane) -> QuerySet[LedgerEntry]:
    own = pending().filter(partner=lane.partner_id)
    own = (
        own.filter(kind__in=sending.METERED, item=lane.item)
        if lane.item
        else own.exclude(kind__in=sending.METERED)
    )
    return own.select_related("period").order_by("id")


def _send(entry: LedgerEntry, route: sending.Route, invoice_id: str) -> None:
    if _may_be_forgotten(entry) and _is_counted(entry, route):
        entry.stripe_identifier = str(entry.pk)
        return
    entry.stripe_identifier = sending.send(entry, route, invoice_id=invoice_id)


def _may_be_forgotten(entry: LedgerEntry) -> bool:
    """Whether an attempt of unknown outcome is so long ago that Stripe may take the identifier again."""
    is_unknown = entry.sync_attempts > 0 and entry.sync_error.startswith(_UNKNOWN_OUTCOMES)
    return is_unknown and timezone.now() - entry.next_sync_at > sending.REMEMBERED


def _is_counted(entry: LedgerEntry, route: sending.Route) -> bool:
    """Whether the meter shows more in the entry's minute than all other entries of that minute."""
    if entry.kind not in sending.METERED:
        return False
    minute = sending.timestamp_of(entry).replace(second=0, microsecond=0)
    end = minute + dt.timedelta(minutes=1)
    meter = metering.meters().get(stripe_prices.event_name(entry.item))
    if meter is None:
        return False
    others = LedgerEntry.objects.filter(partner=entry.partner_id, item=entry.item)
    known = accepted_quantity(sending.between(others, minute, end))
    return metering.total(meter, route.customer.customer_id, minute, end) > known


def _note_attempts(ids: list[uuid.UUID]) -> None:
    """Before the first call: should we die in it, the next run knows that there may have been one."""
    LedgerEntry.objects.filter(pk__in=ids).update(sync_attempts=1, next_sync_at=timezone.now())


def _note_error(entry: LedgerEntry, error: str) -> None:
    LedgerEntry.objects.filter(pk=entry.pk, sync_state=State.PENDING).update(
        sync_attempts=F("sync_attempts") + 1, next_sync_at=timezone.now(), sync_error=error[:500]
    )


def _write(batch: _Batch, counts: Counts) -> None:
    """One statement for the whole batch."""
    if not batch.accepted:
        return
    metered = [entry.pk for entry in batch.accepted if entry.stripe_identifier == str(entry.pk)]
    now = timezone.now()
    accepted = {"sync_state": State.ACCEPTED, "synced_at": now, "sync_error": ""}
    if metered:
        LedgerEntry.objects.filter(pk__in=metered, sync_state=State.PENDING).update(
            stripe_identifier=F("id"), **accepted
        )
    for entry in batch.accepted:
        if entry.stripe_identifier != str(entry.pk):
            LedgerEntry.objects.filter(pk=entry.pk, sync_state=State.PENDING).update(
                stripe_identifier=entry.stripe_identifier, **accepted
            )
    counts.accepted += len(batch.accepted)
    METER_EVENTS.labels("accepted").inc(len(batch.accepted))
    batch.accepted = []


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


def accepted_quantity(entries: QuerySet[LedgerEntry]) -> int:
    """What Stripe has as meter events, of some entries."""
    metered = entries.filter(sync_state=State.ACCEPTED, kind__in=sending.METERED)
    metered = metered.exclude(stripe_identifier__startswith=sending.ITEM_PREFIX)
    return int(metered.aggregate(sum=Sum("quantity"))["sum"] or 0)
