"""How endpoints, events and deliveries look from outside, and the classes that document it."""

import datetime as dt
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from partner_api.http.times import rfc3339
from webhooks.messages import as_dict
from webhooks.models import Attempt, Delivery, Endpoint

event = as_dict


def endpoint(found: Endpoint, *, secret: str | None = None) -> dict[str, Any]:
    """`secret` is given in the two answers that may show it."""
    shown = {
        "id": str(found.pk),
        "object": "webhook_endpoint",
        "livemode": found.livemode,
        "url": found.url,
        "event_types": found.event_types,
        "description": found.description,
        "enabled": found.enabled,
        "disabled_reason": found.disabled_reason or None,
        "failing_since": rfc3339(found.failing_since),
        "created_at": rfc3339(found.created_at),
    }
    return shown if secret is None else {**shown, "secret": secret}


def delivery(found: Delivery) -> dict[str, Any]:
    is_pending = found.status == Delivery.Status.PENDING
    return {
        "id": str(found.pk),
        "object": "webhook_delivery",
        "livemode": found.livemode,
        "endpoint": str(found.endpoint_id),
        "event": str(found.event_id),
        "event_type": found.event.type,
        "status": found.status,
        "attempts": found.attempts,
        "last_status": found.last_status,
        "last_latency_ms": found.last_latency_ms,
        "last_error": found.last_error or None,
        "last_response": found.last_response,
        "next_attempt_at": rfc3339(found.next_attempt_at) if is_pending else None,
        "created_at": rfc3339(found.created_at),
        "settled_at": rfc3339(found.settled_at),
    }


def delivery_with_log(found: Delivery) -> dict[str, Any]:
    log = [_attempt(attempt) for attempt in found.attempt_log.order_by("-id")[:100]]
    return {**delivery(found), "log": log}


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "at": rfc3339(attempt.at),
        "number": attempt.number,
        "status": attempt.status_code,
        "latency_ms": attempt.latency_ms,
        "error": attempt.error or None,
        "response": attempt.response,
    }


class EndpointAnswer(BaseModel):
    """Where events are sent."""

    id: UUID
    object: Literal["webhook_endpoint"]
    livemode: bool
    url: str
    event_types: list[str]
    description: str
    enabled: bool
    disabled_reason: Literal["by_partner", "by_staff", "failing", "gone"] | None
    failing_since: dt.datetime | None
    created_at: dt.datetime


class EndpointWithSecret(EndpointAnswer):
    """The same, with the secret that signs; it is shown this once."""

    secret: str


class EndpointPage(BaseModel):
    data: list[EndpointAnswer]
    next: str | None
    previous: str | None


class EventAnswer(BaseModel):
    """Something that happened. What `data` holds follows from `type`; see `webhooks`."""

    id: UUID
    object: Literal["event"]
    type: str
    livemode: bool
    created_at: dt.datetime
    data: dict[str, Any]


class EventPage(BaseModel):
    data: list[EventAnswer]
    next: str | None
    previous: str | None


class DeliveryAnswer(BaseModel):
    """An event on its way to an endpoint."""

    id: UUID
    object: Literal["webhook_delivery"]
    livemode: bool
    endpoint: UUID
    event: UUID
    event_type: str
    status: Literal["pending", "sending", "succeeded", "failed", "cancelled"]
    attempts: int
    last_status: int | None = Field(description="The HTTP status of the last attempt.")
    last_latency_ms: int | None
    last_error: str | None
    last_response: str = Field(description="Its first kilobyte.")
    next_attempt_at: dt.datetime | None
    created_at: dt.datetime
    settled_at: dt.datetime | None


class AttemptAnswer(BaseModel):
    at: dt.datetime
    number: int
    status: int | None
    latency_ms: int
    error: str | None
    response: str


class DeliveryWithLog(DeliveryAnswer):
    """The same, with its attempts, newest first."""

    log: list[AttemptAnswer]


class DeliveryPage(BaseModel):
    data: list[DeliveryAnswer]
    next: str | None
    previous: str | None


class ReplayAnswer(BaseModel):
    queued: int = Field(description="How many events are sent once more.")


class InboundAnswer(BaseModel):
    """An inbound event that is stored. The same for each repetition."""

    object: Literal["inbound_event"]
    id: UUID
    status: Literal["accepted"]
    received_at: dt.datetime
