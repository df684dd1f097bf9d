"""Every type of event that partners are told of: when it happens, and what it carries.

This is the one definition. Events are made from it, patterns are checked against it, and the page
docs/events.md and the OpenAPI document's `webhooks` are written from it.
"""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from partner_api.http.suggestions import suggest
from webhooks.models.endpoint import Endpoint


class Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DeedNews(Data):
    """A deed that came to its end."""

    deed: UUID
    order_id: str = Field(description="Your number of the order.")
    deed_type: str
    status: Literal["completed", "failed", "cancelled"]
    failure_code: str | None = Field(None, description="Why it failed; null otherwise.")
    url: str = Field(description="Where the deed can be read, with a key.")
    pdf_url: str | None = Field(
        None, description="Answers a link to the PDF, with a key; null without a PDF."
    )


class QuotaNews(Data):
    """How much of a quota is used."""

    quota: str = Field(description="`deeds`, `requests` or `budget`.")
    percent: int
    period_start: dt.date
    url: str = Field(description="Where usage can be read, with a key.")


class InvoiceNews(Data):
    """An invoice whose state has changed."""

    invoice: str
    url: str = Field(description="Where the invoice can be read, with a key.")


class KeyNews(Data):
    """An API key. Its secret is never sent."""

    key: UUID
    prefix: str
    expires_at: dt.datetime | None


class KeyEndNews(KeyNews):
    """An API key that will expire, or that your rotation policy wants replaced."""

    rotation_due_at: dt.datetime | None = Field(
        description="When your rotation policy wants another key in its place; null without a policy."
    )


class EndpointNews(Data):
    """A webhook endpoint that we send nothing to any more."""

    endpoint: UUID
    reason: Literal["failing", "gone", "by_staff", "by_partner"]
    url: str = Field(description="Where the endpoint can be read and enabled, with a key.")


class TestNews(Data):
    """Sent because you asked for it."""

    endpoint: UUID


@dataclass(frozen=True)
class EventType:
    name: str
    happens: str
    data: type[Data]
    example: Data


_DEED: Final = UUID("019abcde-0000-7000-8000-000000000001")
_KEY: Final = UUID("019abcde-0000-7000-8000-000000000002")
_ENDPOINT: Final = UUID("019abcde-0000-7000-8000-000000000003")
_API: Final = "https://api.example.com/v2"


def _deed(status: Literal["completed", "failed", "cancelled"], happens: str) -> EventType:
    url = f"{_API}/deeds/{_DEED}"
    example = DeedNews(
        deed=_DEED,
        order_id="ORD-123",
        deed_type="grant",
        status=status,
        failure_code="main_api_rejected" if status == "failed" else None,
        url=url,
        pdf_url=f"{url}/pdf" if status == "completed" else None,
    )
    return EventType(f"deed.{status}", happens, DeedNews, example)


def _quota(name: str, percent: int, happens: str) -> EventType:
    start = dt.date(2026, 11, 1)
    example = QuotaNews(quota="deeds", percent=percent, period_start=start, url=f"{_API}/usage")
    return EventType(f"quota.{name}", happens, QuotaNews, example)


def _invoice(name: str, happens: str) -> EventType:
    example = InvoiceNews(invoice="in_1Example", url=f"{_API}/invoices/in_1Example")
    return EventType(f"invoice.{name}", happens, InvoiceNews, example)


def _key(name: str, happens: str, kind: type[KeyNews] = KeyNews, **more: None) -> EventType:
    expires_at = dt.datetime(2026, 12, 24, 8, tzinfo=dt.UTC)
    example = kind(key=_KEY, prefix="dp_live_4fT9xQ2b", expires_at=expires_at, **more)
    return EventType(f"key.{name}", happens, kind, example)


_LIST: Final = (
    _deed("completed", "A deed is made and its PDF can be fetched."),
    _deed("failed", "A deed could not be made."),
    _deed("cancelled", "A deed was cancelled while it was queued."),
    _quota("threshold_reached", 80, "A part of a quota or of the budget is used."),
    _quota(
        "exceeded",
        100,
        "An order or a request was refused, because a quota or the budget is used up; told once a period.",
    ),
    _invoice("finalized", "An invoice is final and can be paid."),
    _invoice("paid", "An invoice was paid."),
    _invoice("payment_failed", "A payment of an invoice failed."),
    _key(
        "expiring",
        "An API key will expire soon, or is due for rotation by your policy: once for each of these days.",
        KeyEndNews,
        rotation_due_at=None,
    ),
    _key("rotated", "An API key has a successor; the old one works until it expires."),
    _key("revoked", "An API key was revoked."),
    EventType(
        "webhook.endpoint_disabled",
        "We stopped sending to one of your endpoints; your other endpoints are told.",
        EndpointNews,
        EndpointNews(endpoint=_ENDPOINT, reason="failing", url=f"{_API}/webhook-endpoints/{_ENDPOINT}"),
    ),
    EventType(
        "webhook.test",
        "You asked for a test message; only the endpoint that you named gets it.",
        TestNews,
        TestNews(endpoint=_ENDPOINT),
    ),
)
EVENT_TYPES: Final = {event_type.name: event_type for event_type in _LIST}
PATTERNS: Final = ("*", *sorted({f"{name.partition('.')[0]}.*" for name in EVENT_TYPES}), *EVENT_TYPES)


def wants(patterns: Iterable[str], name: str) -> bool:
    """Whether one of an endpoint's patterns covers a type of event."""
    return not {"*", f"{name.partition('.')[0]}.*", name}.isdisjoint(patterns)


def wanted(endpoint: Endpoint) -> list[str]:
    """Every type that an endpoint's patterns cover."""
    return [name for name in EVENT_TYPES if wants(endpoint.event_types, name)]


def why_no_pattern(pattern: str) -> str | None:
    """None for a pattern that covers something, else a sentence that suggests the nearest."""
    if pattern in PATTERNS:
        return None
    return f"There is no event type {pattern[:60]!r}; {suggest(pattern, list(PATTERNS))}"
