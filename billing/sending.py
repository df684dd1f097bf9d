"""What one ledger entry is at Stripe, and what Stripe's answer means for it.

A deed or a number of requests is a meter event; a correction, and what can't be metered any more, is an
invoice item. The moment that Stripe is told lies in the entry's own billing period: what was charged
late, in a later period, is billed with that one.
"""

import datetime as dt
import time
import uuid
from dataclasses import dataclass
from typing import Final

from django.utils import timezone

from billing import stripe_client, stripe_prices
from billing.billers import Billers
from billing.models import (
    BillingPeriod,
    Contract,
    Invoice,
    LedgerEntry,
    StripeCustomer,
    StripeInvoice,
    StripeSubscription,
)
from billing.models.ledger import ITEM_PREFIX, METERED
from billing.stripe_client import invoices, metering
from billing.stripe_facts import MeterEvent

# An hour short of Stripe's 35 days: an event must not grow too old on its way.
OLDEST: Final = dt.timedelta(days=35) - dt.timedelta(hours=1)
NEWEST: Final = dt.timedelta(minutes=4)
NOTHING_TO_BILL: Final = f"{ITEM_PREFIX}nothing_to_bill"
_SOON: Final = dt.timedelta(minutes=1)


class Rejected(Exception):
    """It can't be metered, now or later. `code` is one of those below, or Stripe's."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code


class Wait(Exception):
    """Nothing is wrong with it, but it can't be sent before `until`."""

    def __init__(self, reason: str, until: dt.datetime) -> None:
        super().__init__(reason)
        self.reason = reason
        self.until = until


@dataclass(frozen=True)
class Route:
    """All that the entries of one partner need to be sent."""

    customer: StripeCustomer
    billers: Billers
    subscriptions: dict[object, StripeSubscription]
    awaited: frozenset[uuid.UUID]
    closed: tuple[tuple[dt.datetime, dt.datetime, str], ...]

    @classmethod
    def of(cls, partner_id: uuid.UUID) -> "Route | None":
        """None for a partner that is not at Stripe."""
        customer = StripeCustomer.objects.filter(partner=partner_id, is_deleted=False).first()
        if customer is None:
            return None
        found = StripeSubscription.objects.filter(contract__partner=partner_id).select_related("contract")
        final = StripeInvoice.objects.filter(invoice__partner=partner_id).exclude(subscription_id="")
        final = final.exclude(invoice__status=Invoice.Status.DRAFT)
        return cls(
            customer,
            Billers.of(partner_id),
            {one.contract_id: one for one in found},
            frozenset(one.pk for one in Contract.objects.current(partner_id, timezone.now().date())),
            tuple(final.values_list("starts_at", "ends_at", "subscription_id")),
        )


def timestamp_of(entry: LedgerEntry) -> dt.datetime:
    """The moment that Stripe is told; the same at each attempt."""
    last = entry.period.ends_at - dt.timedelta(seconds=1)
    return min(max(entry.occurred_at, entry.period.starts_at), last)


def send(entry: LedgerEntry, route: Route, *, invoice_id: str = "") -> tuple[str, bool]:
    """Sends it: the identifier at Stripe, and whether Stripe had it from an earlier attempt.

    `invoice_id` is a draft that an invoice item shall stand on, else the next invoice has it. Raises
    Rejected, Wait, StripeFault.
    """
    _check_period(entry.period, route)
    if entry.kind not in METERED:
        return bill_as_item(entry, route.customer, invoice_id=invoice_id)
    moment = _metered_moment(entry, route)
    identifier = identity(entry, route.customer)
    dimension = (("deed_type", entry.deed_type),) if entry.deed_type else ()
    event = MeterEvent(
        stripe_prices.event_name(entry.item),
        route.customer.customer_id,
        entry.quantity,
        identifier,
        int(moment.timestamp()),
        dimension,
    )
    try:
        outcome = metering.send(event, idempotency_key=identifier)
    except stripe_client.Gone:
        raise
    except stripe_client.Refused as refused:
        if refused.param == "timestamp" and timezone.now() - moment < OLDEST:
            # Stripe's clock is behind ours.
            until = timezone.now() + dt.timedelta(minutes=5)
            raise Wait("clock_skew", until) from refused
        if refused.param == "event_name":
            # Its meter is missing or archived, which is no fault of the entry's, and can be mended.
            raise
        raise Rejected(refused.code, refused.message) from refused
    return identifier, outcome == "duplicate"


def bill_as_item(entry: LedgerEntry, customer: StripeCustomer, *, invoice_id: str = "") -> tuple[str, bool]:
    """An invoice item of the entry's rounded amount, once for a customer; answers as `send`.

    Raises Wait, StripeFault.
    """
    if entry.amount_minor == 0:
        return NOTHING_TO_BILL, False
    made = _made_before(entry, customer) if entry.sync_attempts else None
    if made is not None:
        return made, True
    # The same key wherever the item shall stand: an earlier call for the next invoice is the same call.
    key = f"item:{identity(entry, customer)}"
    try:
        return _create_item(entry, customer, invoice_id, key), False
    except (stripe_client.Unavailable, stripe_client.Refused) as fault:
        if not (fault.is_replayed or isinstance(fault, stripe_client.KeyReused)):
            raise
    # An earlier call ended otherwise, or is about to: what it made can be seen once it is over.
    made = _made_before(entry, customer)
    if made is not None:
        return made, True
    if timezone.now() - entry.next_sync_at < _SOON:
        raise Wait("item_in_doubt", timezone.now() + _SOON)
    return _create_item(entry, customer, invoice_id, f"{key}:{int(time.time())}"), False


def identity(entry: LedgerEntry, customer: StripeCustomer) -> str:
    """The entry's id; for a customer that took a deleted one's place another, since Stripe remembers the
    first for a day."""
    return f"{entry.pk}:{customer.generation}" if customer.generation else str(entry.pk)


def _made_before(entry: LedgerEntry, customer: StripeCustomer) -> str | None:
    """Also when an invoice has it by now; a minute of difference between the clocks is allowed for."""
    return invoices.find_item(customer.customer_id, str(entry.pk), since=entry.created_at - _SOON)


def _create_item(entry: LedgerEntry, customer: StripeCustomer, invoice_id: str, key: str) -> str:
    name = LedgerEntry.Kind(entry.kind).label.capitalize()
    text = f"{name}: {entry.reason or entry.item} ({entry.occurred_at:%Y-%m-%d})"
    return invoices.create_item(
        customer.customer_id,
        amount=entry.amount_minor,
        currency=entry.currency,
        description=text[:500],
        metadata={"entry": str(entry.pk), "kind": entry.kind},
        idempotency_key=key,
        invoice_id=invoice_id,
    )


def _check_period(period: BillingPeriod, route: Route) -> None:
    """Raises Wait while nobody knows that Stripe will bill it."""
    if not route.billers.is_stripe(period):
        raise Wait("contract_not_provisioned", timezone.now() + _SOON)


def _metered_moment(entry: LedgerEntry, route: Route) -> dt.datetime:
    """When it happened, for Stripe. Raises Rejected, Wait."""
    now = timezone.now()
    moment = timestamp_of(entry)
    subscription = route.subscriptions.get(entry.contract_id)
    if subscription is None and entry.contract_id not in route.awaited:
        # It would hold up all that comes after it, for ever.
        raise Rejected("contract_is_over", "its contract gets no subscription any more")
    if subscription is None:
        raise Wait("contract_not_provisioned", now + _SOON)
    if now - moment > OLDEST:
        raise Rejected("too_old", "Stripe takes 35 days")
    if not subscription.covers(moment):
        raise Rejected("outside_subscription", f"{subscription} does not cover {moment:%Y-%m-%d %H:%M}")
    for start, end, of_subscription in route.closed:
        if of_subscription == subscription.subscription_id and start <= moment < end:
            raise Rejected("late_event", "its invoice was final before it was sent")
    if moment - now > NEWEST:
        raise Wait("not_yet", moment - NEWEST)
    return moment
