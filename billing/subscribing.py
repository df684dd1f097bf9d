"""A contract version's subscription at Stripe: from when it bills, and until when.

The contract says both, at each look: a version that is withdrawn, or a last day that moves, moves the end
of what is at Stripe. Stripe takes no start to come and no end that has passed, so two versions of a day
follow each other at the moment when the earlier one could be ended.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from django.db import transaction
from django.db.models import Max, QuerySet
from django.utils import timezone

from billing import stripe_client
from billing.models import Contract, Invoice, InvoiceLine, LedgerEntry, StripeCustomer, StripeLane
from billing.models import StripeSubscription as Subscription
from billing.pricing import period_of
from billing.stripe_client import subscriptions
from billing.stripe_facts import SubscriptionFacts
from keys.models import Partner

_SOONEST: Final = dt.timedelta(minutes=1)


@dataclass(frozen=True)
class Step:
    """One line of the plan. `is_done` when Stripe has it as it should be."""

    what: str
    is_done: bool

    def __str__(self) -> str:
        return f"{'=' if self.is_done else '+'} {self.what}"


def ends(partner: Partner, *, is_dry_run: bool) -> Iterator[Step]:
    """Gives the partner's subscriptions the ends that its contracts say. Raises StripeFault."""
    now = timezone.now()
    for one in unended(partner, now).select_related("contract"):
        wanted = _wanted_end(one.contract)
        soonest = now + _SOONEST
        at = max(wanted, soonest) if wanted is not None else None
        is_soon = at == soonest and one.ends_at is not None and one.ends_at <= soonest
        if at == one.ends_at or is_soon:
            continue
        what = "does not end" if wanted is None else f"ends on {wanted:%Y-%m-%d}"
        yield Step(f"subscription {one.subscription_id} {what}", is_done=False)
        if not is_dry_run:
            _end(one, at)


def unended(partner: Partner, now: dt.datetime) -> QuerySet[Subscription]:
    own = Subscription.objects.filter(contract__partner=partner).exclude(ends_at__lte=now)
    return own.order_by("starts_at")


def begin(contract: Contract, customer: StripeCustomer | None, *, is_dry_run: bool) -> Iterator[Step]:
    """Makes the version's subscription when its time has come. Raises StripeFault."""
    now = timezone.now()
    what = f"subscription from {contract.starts_on}, periods from day {contract.anchor_day}"
    # Without a customer (a plan, where it was deleted) what hung on it is gone.
    if customer is not None and Subscription.objects.filter(contract=contract).exists():
        yield Step(what, is_done=True)
        return
    if contract.starts_on > now.date():
        # Stripe has no subscriptions that start later; the version is made on its first day.
        yield Step(f"{what} (on its first day)", is_done=True)
        return
    period = midnight(period_of(now.date(), contract.anchor_day).start)
    older = Subscription.objects.filter(
        contract__partner=contract.partner_id, contract__starts_on__lt=contract.starts_on
    )
    # All count on the same meters: what happens before the older ones end is theirs.
    until = older.aggregate(last=Max("ends_at"))["last"]
    starts_at = max(midnight(contract.starts_on), period, until or period)
    if starts_at > now:
        yield Step(f"{what} (when the one before has ended, at {starts_at:%H:%M:%S})", is_done=True)
    elif is_dry_run or customer is None:
        yield Step(what, is_done=False)
    else:
        yield Step(what, is_done=not _find_or_make(contract, customer, starts_at, period))


def refresh(subscription: Subscription) -> None:
    """When it ends, or has ended, as Stripe has it. Raises StripeFault."""
    fetched_at = timezone.now()
    try:
        ends_at = subscriptions.read(subscription.subscription_id).ends_at
    except stripe_client.Gone:
        ends_at = min(subscription.ends_at or fetched_at, fetched_at)
    Subscription.note_end(subscription.subscription_id, ends_at, fetched_at=fetched_at)


def midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.UTC)


def _wanted_end(contract: Contract) -> dt.datetime | None:
    """The first moment that is no longer this version's, by what the contracts say now."""
    later = Contract.objects.standing().filter(partner=contract.partner_id, starts_on__gt=contract.starts_on)
    following = later.order_by("starts_on").first()
    days = [following.starts_on] if following else []
    if contract.ends_on is not None:
        days.append(contract.ends_on + dt.timedelta(days=1))
    return midnight(min(days)) if days else None


def _end(subscription: Subscription, at: dt.datetime | None) -> None:
    try:
        found = subscriptions.end(subscription.subscription_id, at)
    except stripe_client.Refused:
        # Perhaps somebody ended it at Stripe, which can't be changed any more.
        refresh(subscription)
        subscription.refresh_from_db()
        if subscription.ends_at is None or subscription.ends_at > timezone.now():
            raise
    else:
        Subscription.note_end(subscription.subscription_id, found.ends_at, fetched_at=timezone.now())


def _find_or_make(
    contract: Contract, customer: StripeCustomer, starts_at: dt.datetime, period: dt.datetime
) -> bool:
    """True when it is new."""
    found = subscriptions.find(customer.customer_id, str(contract.pk))
    is_new = found is None
    if found is None:
        found = _make(contract, customer, starts_at, period)
    with transaction.atomic():
        Subscription.objects.update_or_create(
            contract=contract,
            defaults={
                "subscription_id": found.id,
                "starts_at": found.starts_at,
                "ends_at": found.ends_at,
                "fetched_at": timezone.now(),
            },
        )
        # What waited for this need not wait any longer.
        StripeLane.objects.filter(partner=contract.partner_id).update(next_attempt_at=timezone.now())
    return is_new


def _make(
    contract: Contract, customer: StripeCustomer, starts_at: dt.datetime, period: dt.datetime
) -> SubscriptionFacts:
    contract.refresh_from_db()
    wanted = {price.stripe_price_id for price in contract.prices.all() if price.stripe_price_id}
    wanted |= {contract.stripe_base_price_id} - {""}
    return subscriptions.create(
        customer.customer_id,
        contract=str(contract.pk),
        prices=sorted(wanted),
        starts_at=starts_at,
        anchor_day=contract.anchor_day,
        days_until_due=contract.payment_terms_days,
        is_fee_paid=_is_fee_invoiced(contract, period),
        idempotency_key=f"subscription:{contract.pk}:{customer.customer_id}",
    )


def _is_fee_invoiced(contract: Contract, period: dt.datetime) -> bool:
    """Whether the running period's fee stands on an invoice already, of a customer that was deleted.

    Stripe bills a fee ahead: on the invoice of the period before, or with the subscription.
    """
    fees = InvoiceLine.objects.filter(
        contract=contract,
        kind=LedgerEntry.Kind.BASE_FEE,
        amount__gt=0,
        invoice__status__in=[Invoice.Status.OPEN, Invoice.Status.PAID],
        invoice__at_stripe__ends_at__gte=period,
    )
    return fees.exists()
