"""Writes events and whom they are for, in the transaction of what happened; and sends them once more."""

import datetime as dt
import itertools
import uuid
from collections.abc import Iterable, Iterator
from typing import Final

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from keys.models import Partner
from partner_api.http.problems import Problem
from webhooks import hints
from webhooks.event_types import EVENT_TYPES, Data, EndpointNews, TestNews, wanted, wants
from webhooks.models import Delivery, Endpoint, Event

_BATCH: Final = 1000


def publish(name: str, data: Data, *, partner: Partner, livemode: bool) -> Event:
    """One event, and a delivery for each endpoint that wants its type.

    Call it inside the transaction that makes it true: both happen, or neither.
    """
    event = _event(name, data, partner=partner, livemode=livemode)
    standing = partner.webhook_endpoints.filter(livemode=livemode, enabled=True)
    listening = [endpoint for endpoint in standing if wants(endpoint.event_types, name)]
    if listening:
        Delivery.objects.bulk_create([_delivery(event, endpoint) for endpoint in listening])
        hints.hint_on_commit(hints.DELIVER)
    return event


def send_test(endpoint: Endpoint) -> Delivery:
    """A message to this endpoint alone. Raises Problem `endpoint_disabled`."""
    _refuse_disabled(endpoint)
    with transaction.atomic():
        event = _event(
            "webhook.test",
            TestNews(endpoint=endpoint.pk),
            partner=endpoint.partner,
            livemode=endpoint.livemode,
        )
        delivery = _delivery(event, endpoint)
        delivery.save(force_insert=True)
        hints.hint_on_commit(hints.DELIVER)
    return delivery


def resend(delivery: Delivery) -> None:
    """One delivery once more, whatever became of it. Raises Problem `endpoint_disabled`."""
    _refuse_disabled(delivery.endpoint)
    with transaction.atomic():
        # One that is under way is about to be sent anyhow.
        delivery.send_again(now=timezone.now())
        hints.hint_on_commit(hints.DELIVER)


def replay(endpoint: Endpoint, *, since: dt.datetime, undelivered_only: bool) -> int:
    """All events since then that the endpoint wants, once more; how many.

    Events from a time when it was disabled, or did not want them yet, are sent for the first time.
    Raises Problem `endpoint_disabled`.
    """
    _refuse_disabled(endpoint)
    now = timezone.now()
    settled = [Delivery.Status.FAILED, Delivery.Status.CANCELLED]
    again = settled if undelivered_only else [*settled, Delivery.Status.SUCCEEDED]
    types = wanted(endpoint)
    with transaction.atomic():
        sent_before = Delivery.objects.filter(
            endpoint=endpoint, event__type__in=types, event__created_at__gte=since, status__in=again
        )
        queued = sent_before.update(
            status=Delivery.Status.PENDING, attempts=0, next_attempt_at=now, settled_at=None
        )
        # A test message was for the endpoint that it names, and for no other.
        never_sent = (
            Event.objects.filter(
                partner=endpoint.partner, livemode=endpoint.livemode, type__in=types, created_at__gte=since
            )
            .exclude(type="webhook.test")
            .exclude(deliveries__endpoint=endpoint)
            .order_by("id")
        )
        for events in _batched(never_sent.only("id", "partner_id", "livemode").iterator(), _BATCH):
            missing = [_delivery(event, endpoint) for event in events]
            Delivery.objects.bulk_create(missing, ignore_conflicts=True)
            queued += len(missing)
        hints.hint_on_commit(hints.DELIVER)
    return queued


def disable(endpoint: Endpoint, reason: str) -> bool:
    """Stops sending to an endpoint and tells the partner's others. False when it was stopped before."""
    now = timezone.now()
    with transaction.atomic():
        is_new = endpoint.disable(reason, now=now)
        if is_new:
            cancel_open(endpoint, now=now)
            url = f"{settings.PUBLIC_BASE_URL}/v2/webhook-endpoints/{endpoint.pk}"
            news = EndpointNews.model_validate({"endpoint": endpoint.pk, "reason": str(reason), "url": url})
            publish("webhook.endpoint_disabled", news, partner=endpoint.partner, livemode=endpoint.livemode)
    return is_new


def delete(endpoint: Endpoint, by: Endpoint.Reason = Endpoint.Reason.PARTNER) -> bool:
    """Nothing is sent to it any more; what was sent stays readable. False when it was deleted before."""
    now = timezone.now()
    with transaction.atomic():
        is_done = endpoint.delete_softly(now=now, by=by)
        cancel_open(endpoint, now=now)
    return is_done


def cancel_open(endpoint: Endpoint, *, now: dt.datetime) -> None:
    """What still waits for the endpoint; a request that is under way ends by itself."""
    waiting = Delivery.objects.filter(endpoint=endpoint, status=Delivery.Status.PENDING)
    waiting.update(status=Delivery.Status.CANCELLED, settled_at=now)


def cancel_stranded() -> int:
    """What was under way, or being written, just when its endpoint was disabled; how many."""
    stranded = Delivery.objects.filter(status=Delivery.Status.PENDING, endpoint__enabled=False)
    return stranded.update(status=Delivery.Status.CANCELLED, settled_at=timezone.now())


def find_endpoint(partner: Partner, *, livemode: bool, endpoint_id: uuid.UUID) -> Endpoint | None:
    return (
        partner.webhook_endpoints.filter(livemode=livemode, deleted_at=None, pk=endpoint_id)
        .select_related("partner")
        .first()
    )


def _event(name: str, data: Data, *, partner: Partner, livemode: bool) -> Event:
    if not isinstance(data, EVENT_TYPES[name].data):
        message = f"{name} carries {EVENT_TYPES[name].data.__name__}, not {type(data).__name__}"
        raise TypeError(message)
    return Event.objects.create(
        type=name, partner=partner, livemode=livemode, data=data.model_dump(mode="json")
    )


def _delivery(event: Event, endpoint: Endpoint) -> Delivery:
    return Delivery(endpoint=endpoint, event=event, partner_id=event.partner_id, livemode=event.livemode)


def _batched(events: Iterable[Event], size: int) -> Iterator[list[Event]]:
    remaining = iter(events)
    while batch := list(itertools.islice(remaining, size)):
        yield batch


def _refuse_disabled(endpoint: Endpoint) -> None:
    if not endpoint.enabled:
        detail = f"The endpoint is disabled ({endpoint.disabled_reason}); enable it first."
        raise Problem("endpoint_disabled", detail)
