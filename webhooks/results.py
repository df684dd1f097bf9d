"""Writes down what came of deliveries: many at once, each only while this worker's lease holds."""

import datetime as dt
import random
import uuid
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from webhooks import metrics, stopping
from webhooks.claims import Claimed
from webhooks.models import Attempt, Delivery, Endpoint
from webhooks.sending import INTERNAL_ERROR, Outcome

log = structlog.get_logger(__name__)

# An endpoint that works is noted as working once in this time.
_NOTE_EVERY: Final = dt.timedelta(seconds=60)

_SETTLE: Final = """
    UPDATE webhook_deliveries AS d
    SET status = v.status, next_attempt_at = v.next_attempt_at, settled_at = v.settled_at,
        lease = NULL, lease_expires_at = NULL, last_status = v.last_status,
        last_latency_ms = v.last_latency_ms, last_error = v.last_error, last_response = v.last_response
    FROM unnest(%(id)s::uuid[], %(lease)s::uuid[], %(status)s::text[], %(next_attempt_at)s::timestamptz[],
                %(settled_at)s::timestamptz[], %(last_status)s::int[], %(last_latency_ms)s::int[],
                %(last_error)s::text[], %(last_response)s::text[])
         AS v (id, lease, status, next_attempt_at, settled_at, last_status, last_latency_ms, last_error,
               last_response)
    WHERE d.id = v.id AND d.status = 'sending' AND d.lease = v.lease
    RETURNING d.id
"""


@dataclass(frozen=True)
class Landed:
    claimed: Claimed
    outcome: Outcome


def record(landed: list[Landed]) -> None:
    """The deliveries, their attempts, and what they tell of the endpoints, in one transaction."""
    if not landed:
        return
    now = timezone.now()
    with transaction.atomic():
        ours = _settle(landed, now)
        held = [one for one in landed if one.claimed.id in ours]
        Attempt.objects.bulk_create([_attempt(one) for one in held])
        _judge(held, now)
    for one in landed:
        metrics.count(one.outcome, is_ours=one.claimed.id in ours)
        if not one.outcome.is_received:
            log.info(
                "webhook_not_received",
                delivery=str(one.claimed.id),
                endpoint=str(one.claimed.endpoint.pk),
                attempt=one.claimed.attempt,
                error=one.outcome.error,
            )


def next_attempt(attempt: int, outcome: Outcome, now: dt.datetime) -> dt.datetime | None:
    """When to try again after the nth attempt failed; None when the schedule is used up."""
    schedule = settings.WEBHOOKS_SCHEDULE_SECONDS
    if attempt >= len(schedule):
        return None
    pause = dt.timedelta(seconds=schedule[attempt] * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
    return now + max(pause, outcome.retry_after or pause)


def _settle(landed: list[Landed], now: dt.datetime) -> set[uuid.UUID]:
    """The ids of those that were still ours."""
    columns: dict[str, list[object]] = defaultdict(list)
    for one in landed:
        outcome = one.outcome
        again = None if outcome.is_received else next_attempt(one.claimed.attempt, outcome, now)
        if outcome.is_received:
            status = Delivery.Status.SUCCEEDED
        else:
            status = Delivery.Status.FAILED if again is None else Delivery.Status.PENDING
        values = {
            "id": one.claimed.id,
            "lease": one.claimed.lease,
            "status": str(status),
            "next_attempt_at": again or now,
            "settled_at": None if again else now,
            "last_status": outcome.status,
            "last_latency_ms": outcome.latency_ms,
            "last_error": outcome.error,
            "last_response": outcome.response,
        }
        for name, value in values.items():
            columns[name].append(value)
    with connection.cursor() as cursor:
        cursor.execute(_SETTLE, dict(columns))
        return {row[0] for row in cursor.fetchall()}


def _attempt(one: Landed) -> Attempt:
    return Attempt(
        delivery_id=one.claimed.id,
        at=one.outcome.at,
        number=one.claimed.attempt,
        status_code=one.outcome.status,
        latency_ms=one.outcome.latency_ms,
        error=one.outcome.error,
        response=one.outcome.response,
    )


def _judge(held: list[Landed], now: dt.datetime) -> None:
    """What a batch says of each endpoint: one success outweighs the failures beside it."""
    # By URL, too: it may have been changed while requests were under way.
    by_endpoint: dict[tuple[uuid.UUID, str], list[Landed]] = defaultdict(list)
    for one in held:
        if one.outcome.error != INTERNAL_ERROR:
            by_endpoint[one.claimed.endpoint.pk, one.claimed.endpoint.url].append(one)
    # In one order everywhere: two workers that write down the same endpoints would wait for each other.
    for (_, url), group in sorted(by_endpoint.items()):
        endpoint = group[0].claimed.endpoint
        outcomes = [one.outcome for one in group]
        is_slow = any(outcome.latency_ms >= metrics.SLOW_MS for outcome in outcomes)
        slow_for = dt.timedelta(seconds=settings.WEBHOOKS_SLOW_SECONDS) if is_slow else None
        if any(outcome.is_received for outcome in outcomes):
            _note_success(endpoint, now, slow_for)
        elif any(outcome.is_gone for outcome in outcomes):
            stopping.disable(endpoint, Endpoint.Reason.GONE, still_at=url)
        else:
            _note_failure(endpoint, now, slow_for)


def _note_success(endpoint: Endpoint, now: dt.datetime, slow_for: dt.timedelta | None) -> None:
    last = endpoint.last_success_at
    if slow_for or endpoint.failing_since is not None or last is None or last <= now - _NOTE_EVERY:
        endpoint.note_success(now=now, slow_for=slow_for)


def _note_failure(endpoint: Endpoint, now: dt.datetime, slow_for: dt.timedelta | None) -> None:
    url = endpoint.url
    endpoint.note_failure(now=now, slow_for=slow_for)
    limit = now - dt.timedelta(hours=settings.WEBHOOKS_DISABLE_AFTER_HOURS)
    endpoint.refresh_from_db(fields=["failing_since"])
    if endpoint.failing_since is not None and endpoint.failing_since <= limit:
        stopping.disable(endpoint, Endpoint.Reason.FAILING, still_at=url)
