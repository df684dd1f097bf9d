"""Writes events and whom they are for, in the transaction of what happened; and sends them once more."""

import datetime as dt
from collections.abc import Iterator
from typing import Final

from django.db import transaction
from django.utils import timezone

from keys.models import Partner
from partner_api.http.problems import FieldError, Problem, invalid
from webhooks import hints
from webhooks.event_types import EVENT_TYPES, Data, TestNews, wanted, wants
from webhooks.models import Delivery, Endpoint, Event

# What one request may send once more: it takes some seconds.
MAX_REPLAYED: Final = 50_000
_BATCH: Final = 1000


def publish(name: str, data: Data, *, partner: Partner, livemode: bool) -> Event:
    """One event, and a delivery for each endpoint that wants its type.

    Call it inside the transaction that makes it true: both happen, or neither.
    """
    event = _event(name, data, partner=partner, livemode=livemode)
    enabled = partner.webhook_endpoints.filter(livemode=livemode, enabled=True)
    # Without the secrets: to decrypt them would hold up the transaction.
    listening = [one for one in enabled.only("id", "event_types") if wants(one.event_types, name)]
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
        Delivery.objects.filter(pk=delivery.pk).send_again(now=timezone.now())
        hints.hint_on_commit(hints.DELIVER)


def replay(
    endpoint: Endpoint, *, since: dt.datetime, until: dt.datetime | None = None, undelivered_only: bool
) -> int:
    """All events since then, and before `until`, that the endpoint wants, once more; how many.

    Events from a time when it was disabled, or did not want them yet, are sent for the first time.
    Raises Problem `endpoint_disabled`; `validation_error` where they are more than MAX_REPLAYED.
    """
    _refuse_disabled(endpoint)
    events = _replayable(endpoint, since, until)
    now, queued = timezone.now(), 0
    with transaction.atomic():
        # By ids and in batches: a statement over all of a partner's history would run out of time.
        for batch in _batched(events, _BATCH):
            queued += _send_again(endpoint, batch, now, undelivered_only=undelivered_only)
        hints.hint_on_commit(hints.DELIVER)
    return queued


def _replayable(endpoint: Endpoint, since: dt.datetime, until: dt.datetime | None) -> list[Event]:
    """Raises Problem `validation_error` for too many."""
    found = Event.objects.filter(
        partner=endpoint.partner,
        livemode=endpoint.livemode,
        type__in=wanted(endpoint),
        created_at__gte=since,
        **({} if until is None else {"created_at__lt": until}),
    )
    events = list(
        found.only("id", "type", "partner_id", "livemode").order_by("created_at")[: MAX_REPLAYED + 1]
    )
    if len(events) > MAX_REPLAYED:
        message = (
            f"There are more than {MAX_REPLAYED:,} events since then; ask for a shorter time, which `until` "
            "ends, and then for the next."
        )
        raise invalid([FieldError("/since", "too_many", message)])
    return events


def _send_again(endpoint: Endpoint, events: list[Event], now: dt.datetime, *, undelivered_only: bool) -> int:
    there = Delivery.objects.filter(endpoint=endpoint, event__in=events)
    sent_before = set(there.values_list("event_id", flat=True))
    again = [Delivery.Status.FAILED, Delivery.Status.CANCELLED]
    again += [] if undelivered_only else [Delivery.Status.SUCCEEDED]
    queued = there.filter(status__in=again).send_again(now=now)
    # A test message was for the endpoint that it names, and for no other.
    missing = [
        _delivery(event, endpoint)
        for event in events
        if event.pk not in sent_before and event.type != "webhook.test"
    ]
    Delivery.objects.bulk_create(missing, ignore_conflicts=True)
    return queued + len(missing)


def _event(name: str, data: Data, *, partner: Partner, livemode: bool) -> Event:
    if not isinstance(data, EVENT_TYPES[name].data):
        message = f"{name} carries {EVENT_TYPES[name].data.__name__}, not {type(data).__name__}"
        raise TypeError(message)
    return Event.objects.create(
        type=name, partner=partner, livemode=livemode, data=data.model_dump(mode="json")
    )


def _delivery(event: Event, endpoint: Endpoint) -> Delivery:
    return Delivery(endpoint=endpoint, event=event, partner_id=event.partner_id, livemode=event.livemode)


def _batched(events: list[Event], size: int) -> Iterator[list[Event]]:
    for start in range(0, len(events), size):
        yield events[start : start + size]


def _refuse_disabled(endpoint: Endpoint) -> None:
    if endpoint.deleted_at is not None:
        raise Problem("endpoint_disabled", "The endpoint was deleted; register another, and replay to that.")
    if not endpoint.enabled:
        detail = f"The endpoint is disabled ({endpoint.disabled_reason}); enable it first."
        raise Problem("endpoint_disabled", detail)
