"""One request to one endpoint, and what it means. Knows no database: it runs in threads by the dozen."""

import datetime as dt
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

from django.conf import settings
from django.utils import timezone

from webhooks import outbound_http, signing
from webhooks.outbound_http import NoAnswer

# A receiver may ask for a pause, but not for one that outlasts the schedule.
_MAX_RETRY_AFTER: Final = dt.timedelta(hours=24)
# Ours: it says nothing of the endpoint.
INTERNAL_ERROR: Final = "internal_error"
_MAY_ASK_FOR_A_PAUSE: Final = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}


@dataclass(frozen=True)
class Message:
    """What is sent, and by which secrets it is signed."""

    id: str
    body: bytes
    url: str
    secrets: list[str]


@dataclass(frozen=True)
class Outcome:
    """`error` is empty when the message was received. `retry_after` is a pause that was asked for."""

    at: dt.datetime
    latency_ms: int
    error: str
    status: int | None = None
    response: str = ""
    retry_after: dt.timedelta | None = None

    @property
    def is_received(self) -> bool:
        return not self.error

    @property
    def is_gone(self) -> bool:
        return self.status == HTTPStatus.GONE


def send(message: Message) -> Outcome:
    """Never raises for what a receiver does."""
    at = timezone.now()
    started = time.perf_counter()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"partner-api-webhooks/{settings.VERSION}",
        **signing.headers_for(message.id, at, message.body, message.secrets),
    }
    try:
        answer = outbound_http.post(message.url, message.body, headers)
    except NoAnswer as reason:
        return Outcome(at, _milliseconds(started), reason.code)
    is_received = HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES
    asks = answer.status in _MAY_ASK_FOR_A_PAUSE
    return Outcome(
        at,
        _milliseconds(started),
        error="" if is_received else f"http_{answer.status}",
        status=answer.status,
        response=_readable(answer.body),
        retry_after=pause_of(answer.retry_after, now=at) if asks else None,
    )


def pause_of(header: str, *, now: dt.datetime) -> dt.timedelta | None:
    """Retry-After (RFC 9110 section 10.2.3), seconds or a date; None for what can't be read."""
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(dt.timedelta(seconds=int(text[:9])), _MAX_RETRY_AFTER)
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    # A date without a zone is UTC by RFC 5322's "-0000".
    pause = (until if until.tzinfo else until.replace(tzinfo=dt.UTC)) - now
    return min(max(pause, dt.timedelta(0)), _MAX_RETRY_AFTER)


def _milliseconds(started: float) -> int:
    return round((time.perf_counter() - started) * 1000)


def _readable(body: bytes) -> str:
    """For the log. Postgres keeps no NUL."""
    return body.decode(errors="replace").replace("\x00", "\N{REPLACEMENT CHARACTER}")
