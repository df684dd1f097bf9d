"""Compares the ledger with what Stripe took and billed, and names each difference.

Stripe counts with a delay: a difference is one only when nothing was sent for its day lately. How many
there are is never tolerated.
"""

import datetime as dt
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Final

from django.db.models import QuerySet, Sum
from django.db.models.functions import TruncDate
from django.utils import timezone

from billing import invoice_variances, reconciliation, sending, stripe_client, stripe_prices, syncing
from billing.billers import Billers
from billing.doubts import SETTLING
from billing.models import (
    LedgerEntry,
    Price,
    StripeCustomer,
    StripeLane,
)
from billing.models.ledger import METERED
from billing.reconciliation import Variance
from billing.stripe_client import metering
from keys import audit
from keys.models import Partner

State = LedgerEntry.SyncState
BILLED_AS_ITEM: Final = "billed_as_item:"


def register() -> None:
    """Adds all of this to the comparison."""
    for finder in (_unsynced, _refused, _counted, _late, invoice_variances.find):
        reconciliation.register_finder(finder)
    reconciliation.register_repair("unsynced", _send_it, is_safe=True)
    reconciliation.register_repair("sync_rejected", _bill_it, is_safe=True)
    reconciliation.register_repair("late_event", _bill_it, is_safe=True)


def _unsynced(start: dt.datetime, end: dt.datetime, partner: Partner | None) -> Iterator[Variance]:
    if not stripe_client.is_configured():
        return
    waiting = _entries(start, end, partner).filter(
        sync_state=State.PENDING, created_at__lt=timezone.now() - SETTLING
    )
    errors = {(lane.partner_id, lane.item): lane.last_error for lane in StripeLane.objects.all()}
    for entry in waiting.filter(partner__in=StripeCustomer.objects.values("partner")).iterator(2000):
        lane = entry.item if entry.kind in METERED else ""
        reason = errors.get((entry.partner_id, lane)) or entry.sync_error or "not sent yet"
        yield _of(entry, "unsynced", reason)


def _refused(start: dt.datetime, end: dt.datetime, partner: Partner | None) -> Iterator[Variance]:
    """All that are not settled yet: what is too old for Stripe is older than any time that is looked at."""
    refused = LedgerEntry.objects.filter(sync_state=State.REJECTED, occurred_at__lt=end).order_by("id")
    refused = refused.filter(partner=partner) if partner is not None else refused
    for entry in refused.iterator(2000):
        kind = "late_event" if entry.sync_error.startswith("late_event") else "sync_rejected"
        yield _of(entry, kind, entry.sync_error)


def _late(start: dt.datetime, end: dt.datetime, partner: Partner | None) -> Iterator[Variance]:
    """What Stripe took after its invoice was final: it is counted, and nobody pays for it."""
    for at_stripe in invoice_variances.final(partner):
        late = invoice_variances.metered_of(at_stripe).filter(
            synced_at__gt=at_stripe.invoice.finalized_at, occurred_at__gte=start, occurred_at__lt=end
        )
        for entry in late.exclude(sync_error__startswith=BILLED_AS_ITEM):
            yield _of(entry, "late_event", f"sent after invoice {at_stripe.invoice} was final")


def _counted(start: dt.datetime, end: dt.datetime, partner: Partner | None) -> Iterator[Variance]:
    """Meter by meter and day by day, also those that nothing was sent for. Raises NotCompared."""
    if not stripe_client.is_configured():
        return
    first, last = _day(start), _day(end) + dt.timedelta(days=1)
    customers = StripeCustomer.objects.filter(is_deleted=False)
    if partner is not None:
        customers = customers.filter(partner=partner)
    try:
        meters = metering.meters() if customers else {}
        for customer in customers:
            yield from _miscounted(customer, meters, first, last)
    except stripe_client.StripeFault as fault:
        message = f"Stripe could not be asked: {fault}"
        raise reconciliation.NotCompared(message) from fault


def _miscounted(
    customer: StripeCustomer, meters: dict[str, str], first: dt.datetime, last: dt.datetime
) -> Iterator[Variance]:
    sent, unsettled = _sent(customer, first, last)
    agreed = Price.objects.filter(contract__partner=customer.partner_id).values_list("item", flat=True)
    for item in sorted({item for item, _ in sent} | set(agreed)):
        meter = meters.get(stripe_prices.event_name(item))
        seen = metering.by_day(meter, customer.customer_id, first, last) if meter else {}
        days = {day for name, day in sent if name == item} | set(seen)
        for day in sorted(days):
            ours, theirs = sent[item, day], seen.get(day, 0)
            if ours != theirs and (item, day) not in unsettled:
                kind = "unsynced" if theirs < ours else "meter_excess"
                detail = f"Stripe counts {theirs} of {ours} {item} sent"
                yield Variance(kind, customer.partner_id, day, f"{item}:{day}", detail, is_final=True)


def _entries(start: dt.datetime, end: dt.datetime, partner: Partner | None) -> QuerySet[LedgerEntry]:
    found = LedgerEntry.objects.filter(occurred_at__gte=start, occurred_at__lt=end).order_by("id")
    return found.filter(partner=partner) if partner is not None else found


def _sent(
    customer: StripeCustomer, first: dt.datetime, last: dt.datetime
) -> tuple[Counter[tuple[str, dt.date]], set[tuple[str, dt.date]]]:
    """By item and day: how many were sent to this customer, and where something was sent just now."""
    own = LedgerEntry.objects.filter(partner=customer.partner_id).between(first, last).counted()
    moments = own.annotate(day=TruncDate("stripe_moment"))
    rows = moments.values("item", "day").annotate(sum=Sum("quantity")).order_by("item", "day")
    recent = moments.filter(synced_at__gt=timezone.now() - SETTLING).values_list("item", "day")
    return Counter({(row["item"], row["day"]): row["sum"] for row in rows}), set(recent)


def _send_it(variance: Variance, actor: audit.Actor) -> bool:
    entry = _entry(variance.subject)
    if entry is None or entry.sync_state != State.PENDING or not stripe_client.is_configured():
        return False
    syncing.flush(entry.partner_id)
    entry.refresh_from_db()
    return entry.sync_state != State.PENDING


def _bill_it(variance: Variance, actor: audit.Actor) -> bool:
    """An invoice item on the next invoice, for what no meter will bill any more."""
    entry = _entry(variance.subject)
    if entry is None or not stripe_client.is_configured():
        return False
    customer = StripeCustomer.objects.filter(partner=entry.partner_id, is_deleted=False).first()
    is_open = entry.sync_state == State.REJECTED or (
        entry.sync_state == State.ACCEPTED and not entry.sync_error.startswith(BILLED_AS_ITEM)
    )
    if customer is None or not is_open:
        return False
    if not Billers.of(entry.partner_id).is_stripe(entry.period):
        # Our own invoice has it.
        same = LedgerEntry.objects.filter(pk=entry.pk, sync_state=State.REJECTED)
        return bool(same.update(sync_state=State.NOT_BILLABLE))
    item, _ = sending.bill_as_item(entry, customer)
    was_metered = entry.sync_state == State.ACCEPTED
    changes = (
        # Stripe has the event as well, and counts it; what it is billed by stands beside it.
        {"sync_error": f"{BILLED_AS_ITEM}{item}"}
        if was_metered
        else {
            "sync_state": State.ACCEPTED,
            "stripe_identifier": item,
            "synced_at": timezone.now(),
            "sync_error": "",
        }
    )
    same = LedgerEntry.objects.filter(pk=entry.pk, sync_state=entry.sync_state)
    is_ours = bool(same.update(**changes))
    if is_ours:
        audit.record(
            actor,
            "ledger.billed",
            entry,
            partner=customer.partner,
            after={"item": item},
            reason=variance.kind,
        )
    return is_ours


def _entry(subject: str) -> LedgerEntry | None:
    try:
        return LedgerEntry.objects.select_related("period").filter(pk=uuid.UUID(subject)).first()
    except ValueError:
        return None


def _of(entry: LedgerEntry, kind: str, detail: str) -> Variance:
    return Variance(
        kind, entry.partner_id, entry.occurred_at.astimezone(dt.UTC).date(), str(entry.pk), detail
    )


def _day(moment: dt.datetime) -> dt.datetime:
    return moment.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
