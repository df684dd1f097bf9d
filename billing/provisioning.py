"""Makes at Stripe what a contract says: customer, product, meters, prices, subscription.

Each step looks first, makes with an idempotency key, and writes down what it made before the next one
begins: run twice it changes nothing, and after a crash it goes on where it was.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

import structlog
from django.db import transaction
from django.utils import timezone

from billing import stripe_client, stripe_prices
from billing.models import Contract, StripeCustomer, StripeLane, StripeSubscription
from billing.pricing import period_of
from billing.stripe_client import catalog, customers, metering, subscriptions
from billing.stripe_facts import PriceTerms
from keys import audit
from keys.models import Partner

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Step:
    """One line of the plan. `is_done` when Stripe has it as it should be."""

    what: str
    is_done: bool

    def __str__(self) -> str:
        return f"{'=' if self.is_done else '+'} {self.what}"


class NotNow(Exception):
    """The contract can't be at Stripe yet or any more; the message says why."""


def provision(contract: Contract, actor: audit.Actor, *, is_dry_run: bool = False) -> list[Step]:
    """What was there, and what was made (or would be). Raises NotNow, StripeFault."""
    if contract.withdrawn_at is not None:
        message = f"{contract} was withdrawn"
        raise NotNow(message)
    steps = list(_steps(contract, is_dry_run=is_dry_run))
    if not is_dry_run and not all(step.is_done for step in steps):
        made = [step.what for step in steps if not step.is_done]
        with transaction.atomic():
            Contract.objects.filter(pk=contract.pk).update(provisioned_at=timezone.now())
            audit.record(
                actor, "contract.provisioned", contract, partner=contract.partner, after={"made": made}
            )
    return steps


def provision_quietly(contract: Contract, actor: audit.Actor) -> bool:
    """The same for a task: a fault is logged, and the next run goes on from there."""
    try:
        provision(contract, actor)
    except (NotNow, stripe_client.StripeFault) as fault:
        log.warning("contract_not_provisioned", contract=str(contract.pk), reason=str(fault))
        return False
    return True


def due(now: dt.datetime) -> list[Contract]:
    """Contract versions in force now, or next, of partners that are at Stripe already."""
    partners = Partner.objects.filter(stripe_customer__isnull=False).order_by("pk")
    return [contract for partner in partners for contract in current(partner, now)]


def current(partner: Partner, now: dt.datetime) -> list[Contract]:
    """The version in force, and the one that comes next."""
    today = now.date()
    coming = Contract.objects.standing().filter(partner=partner, starts_on__gt=today).order_by("starts_on")
    found = [Contract.objects.in_force(partner.pk, today), coming.first()]
    return [contract for contract in found if contract is not None]


def _steps(contract: Contract, *, is_dry_run: bool) -> Iterator[Step]:
    customer = _existing_customer(contract.partner)
    yield Step(f"customer for {contract.partner.name}", customer is not None)
    if customer is None and not is_dry_run:
        customer = _make_customer(contract.partner)
    yield _product(contract, is_dry_run=is_dry_run)
    items = sorted({price.item for price in contract.prices.all()})
    known = metering.meters()
    for item in items:
        name = stripe_prices.event_name(item)
        yield Step(f"meter {name}", name in known)
        if name not in known and not is_dry_run:
            known[name] = metering.create_meter(
                name, stripe_prices.title_of(item), idempotency_key=f"meter:{name}"
            )
    subscription = StripeSubscription.objects.filter(contract=contract).first()
    for terms in stripe_prices.terms_of(contract, items, known):
        yield _price(contract, terms, is_subscribed=subscription is not None, is_dry_run=is_dry_run)
    yield from _subscribe(contract, customer, subscription, is_dry_run=is_dry_run)


def _existing_customer(partner: Partner) -> StripeCustomer | None:
    row = StripeCustomer.objects.filter(partner=partner).first()
    if row is None:
        return None
    try:
        is_deleted = customers.read(row.customer_id).is_deleted
    except stripe_client.Gone:
        is_deleted = True
    if is_deleted:
        StripeCustomer.objects.filter(pk=row.pk).update(is_deleted=True)
        return None
    return row


def _make_customer(partner: Partner) -> StripeCustomer:
    before = StripeCustomer.objects.filter(partner=partner).first()
    generation = before.generation + 1 if before else 0
    found = customers.find(str(partner.pk)) or customers.create(
        str(partner.pk),
        name=partner.name,
        email=partner.contact_email,
        idempotency_key=f"customer:{partner.pk}:{generation}",
    )
    row, _ = StripeCustomer.objects.update_or_create(
        partner=partner,
        defaults={
            "customer_id": found.id,
            "livemode": stripe_client.is_livemode(),
            "is_deleted": False,
            "generation": generation,
            "connected_at": timezone.now(),
            "updated_at": timezone.now(),
        },
    )
    if before is not None:
        # What hung on the deleted customer ended with it.
        StripeSubscription.objects.filter(contract__partner=partner).delete()
    return row


def _product(contract: Contract, *, is_dry_run: bool) -> Step:
    product_id = f"contract_{contract.pk.hex}"
    what = f"product {product_id}"
    if is_dry_run:
        return Step(what, is_done=contract.stripe_product_id == product_id)
    is_new = catalog.ensure_product(
        product_id, name=f"{contract}", metadata={"partner": str(contract.partner_id)}
    )
    if contract.stripe_product_id != product_id:
        Contract.objects.filter(pk=contract.pk).update(stripe_product_id=product_id)
    return Step(what, is_done=not is_new)


def _price(contract: Contract, terms: PriceTerms, *, is_subscribed: bool, is_dry_run: bool) -> Step:
    item = terms.lookup_key.rpartition("-")[2]
    stored = _stored_price(contract, item)
    what = f"price {terms.lookup_key}: {terms.nickname}, {stripe_prices.sentence_of(terms)}"
    if is_subscribed and stored:
        # A subscription keeps its price even when that is archived for new ones.
        return Step(what, is_done=True)
    marker = stripe_prices.marker_of(terms)
    found = catalog.find_price(terms.lookup_key)
    is_right = found is not None and found.terms == marker
    if found is not None and is_right:
        if stored != found.id and not is_dry_run:
            _store_price(contract, item, found.id, terms.meter)
        return Step(what, is_done=True)
    if not is_dry_run:
        key = f"price:{terms.lookup_key}:{marker}:{stored or 'first'}"
        _store_price(
            contract,
            item,
            catalog.create_price(terms, idempotency_key=key, marker=marker),
            terms.meter,
        )
    return Step(what, is_done=False)


def _subscribe(
    contract: Contract,
    customer: StripeCustomer | None,
    subscription: StripeSubscription | None,
    *,
    is_dry_run: bool,
) -> Iterator[Step]:
    today = timezone.now().date()
    start = _midnight(contract.starts_on)
    for older in _older(contract):
        yield Step(f"subscription {older.subscription_id} ends on {contract.starts_on}", is_done=False)
        if not is_dry_run:
            _end(older, start)
    what = f"subscription from {contract.starts_on}, periods from day {contract.anchor_day}"
    if subscription is not None:
        yield Step(what, is_done=True)
    elif contract.starts_on > today:
        # Stripe has no subscriptions that start later; the version is made on its first day.
        yield Step(f"{what} (on its first day)", is_done=True)
        return
    elif is_dry_run or customer is None:
        yield Step(what, is_done=False)
    else:
        subscription, is_new = _find_or_make(contract, customer, max(start, _period_start(contract, today)))
        yield Step(what, is_done=not is_new)
    if contract.ends_on is not None and subscription is not None and subscription.ends_at is None:
        yield Step(f"it ends after {contract.ends_on}", is_done=False)
        if not is_dry_run:
            _end(subscription, _midnight(contract.ends_on + dt.timedelta(days=1)))


def _find_or_make(
    contract: Contract, customer: StripeCustomer, starts_at: dt.datetime
) -> tuple[StripeSubscription, bool]:
    at_stripe = subscriptions.running(customer.customer_id)
    found = next((one for one in at_stripe if one.contract == str(contract.pk)), None)
    is_new = found is None
    if found is None:
        contract.refresh_from_db()
        wanted = {price.stripe_price_id for price in contract.prices.all() if price.stripe_price_id}
        wanted |= {contract.stripe_base_price_id} - {""}
        found = subscriptions.create(
            customer.customer_id,
            contract=str(contract.pk),
            prices=sorted(wanted),
            starts_at=starts_at,
            anchor_day=contract.anchor_day,
            days_until_due=contract.payment_terms_days,
            idempotency_key=f"subscription:{contract.pk}:{customer.customer_id}",
        )
    with transaction.atomic():
        row, _ = StripeSubscription.objects.update_or_create(
            contract=contract,
            defaults={
                "subscription_id": found.id,
                "starts_at": found.starts_at,
                "ends_at": found.cancels_at,
            },
        )
        Contract.objects.filter(pk=contract.pk).update(stripe_subscription_id=found.id)
        # What waited for this need not wait any longer.
        StripeLane.objects.filter(partner=contract.partner_id).update(next_attempt_at=timezone.now())
    return row, is_new


def _older(contract: Contract) -> list[StripeSubscription]:
    """Subscriptions of earlier versions that would go on beyond this one's first day."""
    start = _midnight(contract.starts_on)
    others = StripeSubscription.objects.filter(
        contract__partner=contract.partner_id, contract__starts_on__lt=contract.starts_on
    )
    return [one for one in others if one.ends_at is None or one.ends_at > start]


def _end(subscription: StripeSubscription, at: dt.datetime) -> None:
    # Stripe ends nothing in the past; a version that is provisioned late begins when it is.
    at = max(at, timezone.now() + dt.timedelta(minutes=1))
    key = f"end:{subscription.subscription_id}:{int(at.timestamp())}"
    subscriptions.end(subscription.subscription_id, at, idempotency_key=key)
    StripeSubscription.objects.filter(pk=subscription.pk).update(ends_at=at)


def _stored_price(contract: Contract, item: str) -> str:
    if item == stripe_prices.BASE:
        return contract.stripe_base_price_id
    return next((price.stripe_price_id for price in contract.prices.all() if price.item == item), "")


def _store_price(contract: Contract, item: str, price_id: str, meter_id: str) -> None:
    if item == stripe_prices.BASE:
        Contract.objects.filter(pk=contract.pk).update(stripe_base_price_id=price_id)
    else:
        contract.prices.filter(item=item).update(stripe_price_id=price_id, stripe_meter_id=meter_id)


def _period_start(contract: Contract, day: dt.date) -> dt.datetime:
    return _midnight(period_of(day, contract.anchor_day).start)


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.UTC)
