"""Brings deliveries to their endpoints: claims what is due, sends it from threads, writes results down.

What hangs must not delay what doesn't. A request younger than YOUNG_SECONDS holds one of
WEBHOOKS_CONCURRENCY places; an older one gives its place back and goes on beside them. An endpoint
that was slow gets one request at a time, out of a share of its own.
"""

import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Final

import structlog
from django.conf import settings
from django.utils import timezone

from partner_api.slots import slot
from webhooks import claims, hints, results
from webhooks.claims import Claimed
from webhooks.results import Landed
from webhooks.sending import INTERNAL_ERROR, Outcome, send

log = structlog.get_logger(__name__)

YOUNG_SECONDS: Final = 1.0
# While requests are under way, how often what became due meanwhile is looked for.
POLL_SECONDS: Final = 0.05
_TAKE_BACK_SECONDS: Final = 10.0
_WORK: Final = 0x77656268  # "webh"


def pump(*, seconds: float | None = None) -> Counter[str]:
    """Sends until nothing is due, or for `seconds`; then another worker goes on. Counts by outcome.

    At most WEBHOOKS_PUMPS of them run at once; a further one returns with nothing done, and what it was
    called for is found by those that run.
    """
    ends_at = time.monotonic() + (settings.WEBHOOKS_PUMP_SECONDS if seconds is None else seconds)
    with ThreadPoolExecutor(settings.WEBHOOKS_MAX_FLIGHTS, thread_name_prefix="webhooks") as threads:
        flights = _Flights(threads)
        with slot(_WORK, of=settings.WEBHOOKS_PUMPS) as is_ours:
            if not is_ours:
                return flights.counts
            is_idle = flights.run_until(ends_at)
        # Whoever found the slot taken while we were leaving it relied on us.
        if not is_idle or claims.is_anything_claimable(timezone.now()):
            hints.hint(hints.DELIVER)
        flights.land_all()
    if flights.counts:
        log.info("webhooks_sent", **flights.counts)
    return flights.counts


@dataclass(frozen=True)
class _Flight:
    claimed: Claimed
    started: float


class _Flights:
    """Requests under way in this process."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self.threads = threads
        self.open: dict[Future[Outcome], _Flight] = {}
        self.counts: Counter[str] = Counter()

    def run_until(self, ends_at: float) -> bool:
        """Whether it ended because nothing was due or under way."""
        taken_back_at = 0.0
        while time.monotonic() < ends_at:
            if time.monotonic() - taken_back_at > _TAKE_BACK_SECONDS:
                claims.take_back(timezone.now())
                taken_back_at = time.monotonic()
            self._launch()
            if not self.open:
                return True
            self._land(POLL_SECONDS)
        return False

    def land_all(self) -> None:
        while self.open:
            self._land(None)

    def _launch(self) -> None:
        now = time.monotonic()
        slow = sum(flight.claimed.is_slow for flight in self.open.values())
        young = sum(
            not flight.claimed.is_slow and now - flight.started < YOUNG_SECONDS
            for flight in self.open.values()
        )
        spare = settings.WEBHOOKS_MAX_FLIGHTS - len(self.open)
        # Half of what is there may hang, and the other half still serves.
        places_slow = min(spare, settings.WEBHOOKS_MAX_FLIGHTS // 2 - slow)
        places_fast = min(spare, settings.WEBHOOKS_CONCURRENCY - young)
        for claimed in claims.claim(timezone.now(), fast=places_fast, slow=places_slow):
            flight = _Flight(claimed, time.monotonic())
            self.open[self.threads.submit(send, claimed.message)] = flight

    def _land(self, seconds: float | None) -> None:
        """Waits for one to end, and writes down all that have."""
        done, _ = wait(self.open, timeout=seconds, return_when=FIRST_COMPLETED)
        landed = [_landed(self.open.pop(future), future) for future in done]
        results.record(landed)
        self.counts.update("received" if one.outcome.is_received else "not_received" for one in landed)


def _landed(flight: _Flight, future: Future[Outcome]) -> Landed:
    """A fault of ours in one flight must not lose what came of the others."""
    error = future.exception()
    if error is None:
        return Landed(flight.claimed, future.result())
    log.error("webhook_not_sent", delivery=str(flight.claimed.id), exc_info=error)
    latency_ms = round((time.monotonic() - flight.started) * 1000)
    return Landed(flight.claimed, Outcome(timezone.now(), latency_ms, INTERNAL_ERROR))
