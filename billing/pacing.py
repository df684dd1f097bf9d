"""How fast we may call Stripe, all processes together: counted in Redis in windows of a tenth of a second.

Short windows keep what two of them may add up to close to the rate. Without Redis each process keeps
to a tenth of it.
"""

import threading
import time
from typing import Final

from django.conf import settings
from django_redis import get_redis_connection
from django_redis.exceptions import ConnectionInterrupted
from redis.exceptions import RedisError

_WINDOW_SECONDS: Final = 0.1
_KEPT_MS: Final = 2_000
_SHARE_WITHOUT_REDIS: Final = 10


class Pace:
    """Calls a second, by the name of the setting that says how many."""

    def __init__(self, setting: str, *, at_once: int) -> None:
        self._setting = setting
        self._at_once = at_once
        self._lock = threading.Lock()
        self._window = -1
        self._permits = 0

    def wait(self) -> None:
        """Returns when one more call may be made."""
        while not self._take():
            time.sleep(_WINDOW_SECONDS / 4)

    def _take(self) -> bool:
        with self._lock:
            window = int(time.monotonic() / _WINDOW_SECONDS)
            if window != self._window:
                # What the last window left is void: it was meant for that one.
                self._window, self._permits = window, 0
            if not self._permits:
                self._permits = self._granted()
            if not self._permits:
                return False
            self._permits -= 1
            return True

    def _granted(self) -> int:
        limit = max(1, int(getattr(settings, self._setting) * _WINDOW_SECONDS))
        wanted = min(self._at_once, limit)
        # Windows are those of the wall clock, which the processes of all machines share closely enough.
        key = f"pace:{self._setting}:{int(time.time() / _WINDOW_SECONDS)}"
        try:
            pipeline = get_redis_connection("default").pipeline(transaction=False)
            taken = int(pipeline.incrby(key, wanted).pexpire(key, _KEPT_MS).execute()[0])
        except (RedisError, ConnectionInterrupted):
            return max(1, limit // _SHARE_WITHOUT_REDIS)
        return max(0, min(wanted, wanted - (taken - limit)))


METER_EVENTS: Final = Pace("STRIPE_METER_EVENTS_PER_SECOND", at_once=8)
CALLS: Final = Pace("STRIPE_CALLS_PER_SECOND", at_once=1)
