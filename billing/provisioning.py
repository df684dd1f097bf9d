"""Makes at Stripe what a contract says: customer, product, meters, prices, subscription.

Each step looks first, makes with an idempotency key, and writes down what it made before the next one
begins: run twice it changes nothing, and after a crash it goes on where it was.
"""

import datetime as dt
from collections.abc import Iterator

import structlog
from django.db import transaction
from django.utils import timezone

from billing import resending, stripe_client, stripe_prices, subscribing
from billing.models import Contract, StripeCustomer, StripeSubscription
from billing.stripe_client import catalog, customers, metering
from billing.stripe_facts import PriceTerms
from billing.subscribing import Step
from keys import audit
from keys.models import Partner

log = structlog.get_logger(__name__)


class NotNow(Exception):
    """The contract can't be at Stripe yet or any more; the message says why."""


def provision(contract: Contract, actor: audit.Actor, *, is_dry_run: bool = False) -> list[Step]:
    """What was there, and what was made (or would be). Raises NotNow, StripeFault.

    Of a version that is over only the end is seen to: a subscription made now would bill what another does.
    """
    now = timezone.now()
    if contract.withdrawn_at is not None:
        message = f"{contract} was withdrawn"
        raise NotNow(message)
    if contract in Contract.objects.current(contract.partner_id, now.date()):
        steps = list(_steps(contract, is_dry_run=is_dry_run))
    elif subscribing.unended(contract.partner, now).filter(contract=contract).exists():
        steps = list(subscribing.ends(contract.partner, is_dry_run=is_dry_run))
    else:
        message = f"{contract} is neither in force nor the next"
        raise NotNow(message)
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
    """Of partners that are at Stripe already: the versions in force now, or next, and those that are over
    while their subscription goes on."""
    found = []
    for partner in Partner.objects.filter(stripe_customer__isnull=False).order_by("pk"):
        current = Contract.objects.current(partner.pk, now.date())
        unended = (one.contract for one in subscribing.unended(partner, now).select_related("contract"))
        found += [*current, *(contract for contract in unended if contract not in current)]
    return found


def _steps(contract: Contract, *, is_dry_run: bool) -> Iterator[Step]:
    customer = _existing_customer(contract.partner, is_dry_run=is_dry_run)
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
    is_subscribed = StripeSubscription.objects.filter(contract=contract).exists()
    for terms in stripe_prices.terms_of(contract, items, known):
        yield _price(contract, terms, is_subscribed=is_subscribed, is_dry_run=is_dry_run)
    yield from subscribing.ends(contract.partner, is_dry_run=is_dry_run)
    yield from subscribing.begin(contract, customer, is_dry_run=is_dry_run)
    if not is_dry_run:
        yield from subscribing.ends(contract.partner, is_dry_run=False)  # of the new one


def _existing_customer(partner: Partner, *, is_dry_run: bool) -> StripeCustomer | None:
    row = StripeCustomer.objects.filter(partner=partner).first()
    if row is None:
        return None
    try:
        is_deleted = customers.read(row.customer_id).is_deleted
    except stripe_client.Gone:
        is_deleted = True
    if is_deleted and not is_dry_run:
        StripeCustomer.objects.filter(pk=row.pk).update(is_deleted=True)
    return None if is_deleted else row


def _make_customer(partner: Partner) -> StripeCustomer:
    before = StripeCustomer.objects.filter(partner=partner).first()
    generation = before.generation + 1 if before else 0
    found = customers.find(str(partner.pk))
    if found is None or (before is not None and found.id == before.customer_id):
        found = customers.create(
            str(partner.pk),
            name=partner.name,
            email=partner.contact_email,
            idempotency_key=f"customer:{partner.pk}:{generation}",
        )
    if before is not None:
        resending.learn_what_is_final(before)
    with transaction.atomic():
        if before is not None:
            known = StripeCustomer.objects.select_for_update(no_key=True).get(pk=before.pk)
            if known.customer_id != before.customer_id:
                return known  # another process was first
            resending.reopen(before)
            # What hung on the deleted customer ended with it.
            StripeSubscription.objects.filter(contract__partner=partner).delete()
        row, _ = StripeCustomer.objects.update_or_create(
            partner=partner,
            defaults={
                "customer_id": found.id,
                "livemode": stripe_client.is_livemode(),
                "is_deleted": False,
                "generation": generation,
                # It has no card yet.
                "card_brand": "",
                "card_last4": "",
                "card_expires": "",
                "connected_at": timezone.now(),
                "updated_at": timezone.now(),
            },
        )
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
    stored = _stored_price(contract, terms.item)
    what = f"price {terms.lookup_key}: {terms.nickname}, {stripe_prices.sentence_of(terms)}"
    if is_subscribed and stored:
        # A subscription keeps its price even when that is archived for new ones.
        return Step(what, is_done=True)
    marker = stripe_prices.marker_of(terms)
    found = catalog.find_price(terms.lookup_key)
    is_right = found is not None and found.terms == marker
    if found is not None and is_right:
        if stored != found.id and not is_dry_run:
            _store_price(contract, terms.item, found.id, terms.meter)
        return Step(what, is_done=True)
    if not is_dry_run:
        key = f"price:{terms.lookup_key}:{marker}:{stored or 'first'}"
        _store_price(
            contract,
            terms.item,
            catalog.create_price(terms, idempotency_key=key, marker=marker),
            terms.meter,
        )
    return Step(what, is_done=False)


def _stored_price(contract: Contract, item: str) -> str:
    if item == stripe_prices.BASE:
        return contract.stripe_base_price_id
    return next((price.stripe_price_id for price in contract.prices.all() if price.item == item), "")


def _store_price(contract: Contract, item: str, price_id: str, meter_id: str) -> None:
    if item == stripe_prices.BASE:
        Contract.objects.filter(pk=contract.pk).update(stripe_base_price_id=price_id)
    else:
        contract.prices.filter(item=item).update(stripe_price_id=price_id, stripe_meter_id=meter_id)
