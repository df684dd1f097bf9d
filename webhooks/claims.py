"""Which deliveries are sent next: those due, in turn by endpoint, within each endpoint's bound.

The bound holds over all workers: whoever claims for an endpoint holds its row for that moment, and
counts what is under way.
"""

import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Any, Final

import uuid_utils.compat
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Count, OuterRef, Subquery

from webhooks.messages import body_of
from webhooks.models import Delivery, Endpoint, Event
from webhooks.models.endpoint import EndpointQuerySet
from webhooks.sending import Message

_ENDPOINTS_LOOKED_AT: Final = 500

# Found by an array of their ids: of a join the planner believes that it needs the whole table.
_CLAIM: Final = """
    WITH chosen AS MATERIALIZED (
        SELECT picked.id
        FROM unnest(%(endpoints)s::uuid[], %(places)s::int[]) AS room (endpoint_id, places)
        CROSS JOIN LATERAL (
            SELECT id FROM webhook_deliveries
            WHERE endpoint_id = room.endpoint_id AND status = 'pending' AND next_attempt_at <= %(now)s
            ORDER BY next_attempt_at LIMIT room.places
            FOR UPDATE SKIP LOCKED
        ) AS picked
    )
    UPDATE webhook_deliveries AS d
    SET status = 'sending', lease = %(lease)s, lease_expires_at = %(until)s, attempts = d.attempts + 1
    WHERE d.id = ANY (ARRAY(SELECT id FROM chosen))
    RETURNING d.id, d.endpoint_id, d.event_id, d.attempts
"""


@dataclass(frozen=True)
class Claimed:
    """A delivery in this worker's hands. `attempt` counts from one."""

    id: uuid.UUID
    lease: uuid.UUID
    endpoint: Endpoint
    is_slow: bool
    attempt: int
    message: Message


def claim(now: dt.datetime, *, fast: int, slow: int) -> list[Claimed]:
    """At most `fast` deliveries to endpoints that answer in time, and `slow` to those that don't."""
    if fast <= 0 and slow <= 0:
        return []
    with transaction.atomic():
        # Not against the key: an order that inserts deliveries need not wait.
        endpoints_due = _with_due(now)
        if fast <= 0:
            endpoints_due = endpoints_due.slow(now)
        elif slow <= 0:
            # Many slow ones must not be all that is looked at while there is no room for them.
            endpoints_due = endpoints_due.not_slow(now)
        locked = endpoints_due.select_for_update(skip_locked=True, no_key=True)
        endpoints = {endpoint.pk: endpoint for endpoint in locked[:_ENDPOINTS_LOOKED_AT]}
        places = _places(list(endpoints.values()), now, fast=fast, slow=slow)
        if not places:
            return []
        lease = uuid_utils.compat.uuid7()
        rows = _take(places, now, lease)
    events = Event.objects.in_bulk({event_id for _, _, event_id, _ in rows})
    return [
        Claimed(
            id=delivery_id,
            lease=lease,
            endpoint=endpoints[endpoint_id],
            is_slow=endpoints[endpoint_id].is_slow_at(now),
            attempt=attempt,
            message=_message(events[event_id], endpoints[endpoint_id], now),
        )
        for delivery_id, endpoint_id, event_id, attempt in rows
    ]


def take_back(now: dt.datetime) -> int:
    """Deliveries of workers whose lease has run out: due again at once."""
    return Delivery.objects.abandoned(now).update(
        status=Delivery.Status.PENDING, lease=None, lease_expires_at=None, next_attempt_at=now
    )


def is_anything_claimable(now: dt.datetime) -> bool:
    """Whether something is due whose endpoint has a place free."""
    endpoints = list(_with_due(now)[:_ENDPOINTS_LOOKED_AT])
    return bool(_places(endpoints, now, fast=1, slow=1))


def _with_due(now: dt.datetime) -> EndpointQuerySet:
    """Endpoints with something due; whose oldest waits longest comes first."""
    due = Delivery.objects.due(now).filter(endpoint=OuterRef("pk"))
    # The first of the index, where an aggregate would read all that waits, each time.
    oldest = due.order_by("next_attempt_at").values("next_attempt_at")[:1]
    enabled = Endpoint.objects.filter(enabled=True).annotate(oldest=Subquery(oldest))
    return enabled.filter(oldest__isnull=False).order_by("oldest")


def _places(endpoints: list[Endpoint], now: dt.datetime, *, fast: int, slow: int) -> dict[uuid.UUID, int]:
    """How many to take for each. A statement of its own: it sees what was claimed before the locks."""
    under_way = dict(
        Delivery.objects.filter(endpoint__in=endpoints, status=Delivery.Status.SENDING)
        .values_list("endpoint")
        .annotate(count=Count("pk"))
    )
    wished = {
        endpoint.pk: max(0, endpoint.places_at(now) - under_way.get(endpoint.pk, 0)) for endpoint in endpoints
    }
    is_slow = {endpoint.pk: endpoint.is_slow_at(now) for endpoint in endpoints}
    given: dict[uuid.UUID, int] = {}
    left = {False: fast, True: slow}
    # Round by round, so that one endpoint's bound does not use up what all share.
    for _ in range(int(settings.WEBHOOKS_ENDPOINT_CONCURRENCY)):
        for key, wish in wished.items():
            if given.get(key, 0) < wish and left[is_slow[key]] > 0:
                given[key] = given.get(key, 0) + 1
                left[is_slow[key]] -= 1
    return given


def _take(places: dict[uuid.UUID, int], now: dt.datetime, lease: uuid.UUID) -> list[Any]:
    until = now + dt.timedelta(seconds=settings.WEBHOOKS_LEASE_SECONDS)
    facts: dict[str, Any] = {
        "endpoints": list(places),
        "places": list(places.values()),
        "now": now,
        "lease": lease,
        "until": until,
    }
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, facts)
        rows: list[Any] = cursor.fetchall()
    return rows


def _message(event: Event, endpoint: Endpoint, now: dt.datetime) -> Message:
    return Message(str(event.pk), body_of(event), endpoint.url, endpoint.secrets_at(now))
