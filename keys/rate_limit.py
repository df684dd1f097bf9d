"""How fast a key or an address may call: a token bucket, as the generic cell rate algorithm (GCRA).

One number is kept, the time at which the bucket will be full again. Redis keeps it, by its own clock, in
one atomic call (`keys.gate`); while Redis is away each process keeps its own, in bounded memory.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Limit:
    """`per_minute` sustained, and `burst` at once after a rest."""

    per_minute: int
    burst: int

    @property
    def interval_us(self) -> int:
        """Microseconds in which one request's room comes back."""
        return max(1, 60 * MICROSECONDS // self.per_minute)


@dataclass(frozen=True, slots=True)
class Decision:
    """`remaining` requests could follow at once; `retry_after_us` is 0 when this one may pass."""

    limit: Limit
    remaining: int
    reset_us: int
    retry_after_us: int = 0

    @property
    def is_allowed(self) -> bool:
        return self.retry_after_us == 0

    @property
    def retry_after_seconds(self) -> int:
        """Whole seconds, rounded up: a client that waits them passes."""
        return -(-self.retry_after_us // MICROSECONDS)

    @property
    def reset_seconds(self) -> int:
        return -(-self.reset_us // MICROSECONDS)


def decide(limit: Limit, full_at_us: int, now_us: int) -> tuple[Decision, int]:
    """The decision at a time, and when the bucket will be full after it.

    A clock that was moved back leaves a time far ahead; it counts as an empty bucket, not as a long wait.
    """
    interval, depth = limit.interval_us, limit.interval_us * limit.burst
    before = min(max(full_at_us, now_us), now_us + depth)
    after = before + interval
    over = after - now_us - depth
    if over > 0:
        return Decision(limit, 0, before - now_us, over), before
    return Decision(limit, -over // interval, after - now_us), after


class MemoryLimiter:
    """For one process, and at most `most` names: the least recently used is forgotten first."""

    def __init__(self, most: int, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.most = most
        self._clock_ns = clock_ns
        self._full_at_us: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._full_at_us)

    def take(self, name: str, limit: Limit) -> Decision:
        now_us = self._clock_ns() // 1000
        with self._lock:
            decision, full_at_us = decide(limit, self._full_at_us.pop(name, 0), now_us)
            self._full_at_us[name] = full_at_us
            self._forget(now_us)
        return decision

    def _forget(self, now_us: int) -> None:
        """What is full again says nothing; beyond `most` the oldest goes in any case."""
        oldest = next(iter(self._full_at_us))
        if len(self._full_at_us) > self.most or self._full_at_us[oldest] <= now_us:
            del self._full_at_us[oldest]
