"""Meter events under Stripe's rules: identifiers, timestamps, concurrency, rates, late ones, the lag."""

import re
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from partner_api.local.stripe_twin.world import Refusal, Thing, World

IDENTIFIER_LENGTH: Final = 100
OLDEST_SECONDS: Final = 35 * 86_400
NEWEST_SECONDS: Final = 300
REMEMBERED_SECONDS: Final = 24 * 3600


@dataclass(frozen=True)
class Accepted:
    identifier: str
    customer: str
    event_name: str
    value: Decimal
    timestamp: int
    seen_at: float  # monotonic
    deed_type: str = ""


class Window:
    """How many calls there were in the last second."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()
        self._lock = threading.Lock()

    def is_over(self, limit: int) -> bool:
        now = time.monotonic()
        with self._lock:
            while self._times and self._times[0] <= now - 1:
                self._times.popleft()
            if len(self._times) >= limit:
                return True
            self._times.append(now)
            return False


@dataclass
class Meters:
    world: World
    accepted: dict[tuple[str, str], list[Accepted]] = field(default_factory=lambda: defaultdict(list))
    identifiers: dict[str, int] = field(default_factory=dict)
    late: list[Accepted] = field(default_factory=list)
    closed: dict[tuple[str, str], list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self._busy: set[tuple[str, str]] = set()
        self._window = Window()

    def record(self, params: dict[str, Any]) -> Thing:
        """Raises Refusal."""
        world = self.world
        payload = params.get("payload") or {}
        if self._window.is_over(world.per_second):
            world.violate("meter_events_per_second")
            raise Refusal(429, "Too many meter events", kind="rate_limit_error", code="rate_limit")
        lane = (payload.get("stripe_customer_id", ""), params.get("event_name", ""))
        with world.lock:
            if lane in self._busy:
                world.violate("concurrent_calls")
                raise Refusal(429, "Another call holds this lock", code="lock_timeout")
            self._busy.add(lane)
        try:
            if world.work_seconds:
                time.sleep(world.work_seconds)
            with world.lock:
                return self._accept(params, lane, payload)
        finally:
            with world.lock:
                self._busy.discard(lane)

    def total(self, customer: str, event_name: str, start: int, end: int) -> Decimal:
        """What aggregation has seen of [start, end)."""
        seen_until = time.monotonic() - self.world.lag_seconds
        return sum(
            (
                event.value
                for event in self.accepted.get((customer, event_name), ())
                if start <= event.timestamp < end and event.seen_at <= seen_until
            ),
            Decimal(0),
        )

    def _accept(self, params: dict[str, Any], lane: tuple[str, str], payload: dict[str, Any]) -> Thing:
        now = self.world.now()
        customer, event_name = lane
        meters = [meter for meter in self.world.all("billing.meter") if meter["event_name"] == event_name]
        if not any(meter["status"] == "active" for meter in meters):
            raise Refusal(400, f'No active meter found for event name "{event_name}".')
        self.world.get("customer", customer, param="payload[stripe_customer_id]")
        identifier = params.get("identifier") or ""
        if not 0 < len(identifier) <= IDENTIFIER_LENGTH:
            self.world.violate("identifier_length")
            raise Refusal(400, "Invalid identifier: 1 to 100 characters", param="identifier")
        try:
            value = Decimal(payload.get("value", ""))
        except InvalidOperation:
            self.world.violate("value")
            raise Refusal(400, "Invalid value: must be numeric", param="payload[value]") from None
        timestamp = self._timestamp(params, now)
        known = self.identifiers.get(identifier)
        if known is not None and now - known < REMEMBERED_SECONDS:
            message = f"An event already exists with identifier {identifier}."
            raise Refusal(400, message, headers={"stripe-should-retry": "false"})
        self.identifiers[identifier] = now
        deed_type = payload.get("deed_type", "")
        event = Accepted(identifier, customer, event_name, value, timestamp, time.monotonic(), deed_type)
        if self._is_late(event):
            self.late.append(event)
        self.accepted[lane].append(event)
        return {
            "object": "billing.meter_event",
            "livemode": self.world.livemode,
            "created": now,
            "event_name": event_name,
            "identifier": identifier,
            "payload": payload,
            "timestamp": timestamp,
        }

    def _timestamp(self, params: dict[str, Any], now: int) -> int:
        text = str(params.get("timestamp", now))
        if not re.fullmatch(r"\d{1,11}", text):
            raise Refusal(400, "Invalid timestamp", param="timestamp")
        timestamp = int(text)
        if timestamp < now - OLDEST_SECONDS:
            self.world.violate("timestamp_too_old")
            raise Refusal(400, "The timestamp is older than 35 days", param="timestamp")
        if timestamp > now + NEWEST_SECONDS:
            self.world.violate("timestamp_in_the_future")
            raise Refusal(400, "The timestamp is over 5 minutes in the future", param="timestamp")
        return timestamp

    def _is_late(self, event: Accepted) -> bool:
        """Whether the period it belongs to has a finalized invoice: nobody will pay for it."""
        closed = self.closed.get((event.customer, event.event_name), ())
        return any(start <= event.timestamp < end for start, end in closed)
