"""Stripe's webhooks: stored as they came, then acted on by looking at what Stripe says now.

An event is a hint that something changed. They come twice, late and in any order, so what it changed is
fetched again; only the news that a payment failed is taken from the event itself.
"""

import datetime as dt
import random
from typing import Final

import structlog
from django.db import IntegrityError, transaction
from django.utils import timezone

from billing import invoice_mirror, stripe_client, subscribing
from billing.models import StripeCustomer, StripeEvent, StripeSubscription
from billing.stripe_client import StripeFault, customers, events
from billing.stripe_facts import WebhookFacts
from billing.stripe_metrics import WEBHOOKS

log = structlog.get_logger(__name__)

State = StripeEvent.State
BATCH: Final = 200
_PAUSE_MAX_SECONDS: Final = 3600
_OF_CUSTOMER: Final = ("customer.updated", "payment_method.", "setup_intent.succeeded")


def receive(body: bytes, signature: str) -> tuple[StripeEvent, bool]:
    """Stores a webhook. True when it is the first of its id. Raises BadSignature, ValueError."""
    facts = events.read(body, signature)
    event = StripeEvent(
        event_id=facts.id,
        kind=facts.kind,
        livemode=facts.livemode,
        object_id=facts.object_id,
        customer_id=facts.customer,
        body=body.decode(),
        created_at=facts.created_at,
    )
    reason = _why_ignored(facts)
    if reason:
        event.state, event.note, event.settled_at = State.IGNORED, reason, timezone.now()
    try:
        with transaction.atomic():
            event.save(force_insert=True)
    except IntegrityError:
        WEBHOOKS.labels("repeated").inc()
        return event, False
    WEBHOOKS.labels("ignored" if reason else "stored").inc()
    return event, True


def process(event_id: str) -> None:
    """Acts on one stored event. Does nothing for one that is settled; puts off what can't be done now."""
    event = StripeEvent.objects.waiting(timezone.now()).filter(pk=event_id).first()
    if event is None:
        return
    try:
        _act(event)
    except StripeFault as fault:
        _put_off(event, str(fault))
        log.warning("stripe_event_put_off", event_id=event.pk, kind=event.kind, code=fault.code)
    except Exception as error:
        # A fault of ours with one event must not keep all later ones waiting; it stays to be seen.
        _put_off(event, f"{type(error).__name__}: {error}")
        log.exception("stripe_event_failed", event_id=event.pk, kind=event.kind)


def process_waiting() -> int:
    """All that is due, in the order of Stripe's clock; how many there were."""
    due = StripeEvent.objects.waiting(timezone.now()).order_by("created_at", "event_id")
    ids = list(due.values_list("pk", flat=True)[:BATCH])
    for event_id in ids:
        process(event_id)
    return len(ids)


def _put_off(event: StripeEvent, note: str) -> None:
    pause = min(_PAUSE_MAX_SECONDS, 2 ** min(event.attempts + 1, 12)) * random.uniform(0.5, 1)  # noqa: S311 - jitter
    event.put_off(until=timezone.now() + dt.timedelta(seconds=pause), note=note)


def _why_ignored(facts: WebhookFacts) -> str:
    if facts.livemode != stripe_client.is_livemode():
        return f"of the {'live' if facts.livemode else 'test'} mode, which our key is not of"
    return ""


def _act(event: StripeEvent) -> None:
    """Raises StripeFault."""
    if event.customer_id and not StripeCustomer.objects.filter(customer_id=event.customer_id).exists():
        # Stored and to be seen: perhaps somebody made a customer by hand.
        event.settle(State.IGNORED, now=timezone.now(), note=f"unknown customer {event.customer_id}")
        log.warning("stripe_event_of_unknown_customer", event_id=event.pk, customer=event.customer_id)
    elif event.kind.startswith("invoice.") and event.object_id.startswith("in_"):
        invoice_mirror.mirror(event.object_id, event=event)
    elif event.kind == "customer.deleted":
        _customer_is_gone(event)
    elif event.kind.startswith(_OF_CUSTOMER) and event.customer_id:
        refresh_customer(event.customer_id)
        event.settle(State.DONE, now=timezone.now())
    elif event.kind.startswith("customer.subscription."):
        _refresh_subscriptions(event)
    else:
        event.settle(State.IGNORED, now=timezone.now(), note="of no interest here")


def refresh_customer(customer_id: str) -> None:
    """The default payment method, as Stripe shows it. Raises StripeFault."""
    fetched_at = timezone.now()
    found = customers.read(customer_id)
    card = customers.card(found.default_payment_method) if found.default_payment_method else None
    StripeCustomer.objects.filter(customer_id=customer_id, updated_at__lte=fetched_at).update(
        is_deleted=found.is_deleted,
        card_brand=card.brand if card else "",
        card_last4=card.last4 if card else "",
        card_expires=card.expires if card else "",
        updated_at=fetched_at,
    )


def _customer_is_gone(event: StripeEvent) -> None:
    now = timezone.now()
    with transaction.atomic():
        if event.settle(State.DONE, now=now):
            gone = StripeCustomer.objects.filter(customer_id=event.customer_id)
            gone.update(is_deleted=True, updated_at=now)
    log.error("stripe_customer_deleted", customer=event.customer_id)


def _refresh_subscriptions(event: StripeEvent) -> None:
    """Each of ours by itself: that one is not in a list does not say since when."""
    for subscription in StripeSubscription.objects.filter(
        contract__partner__stripe_customer__customer_id=event.customer_id
    ):
        subscribing.refresh(subscription)
    event.settle(State.DONE, now=timezone.now())
