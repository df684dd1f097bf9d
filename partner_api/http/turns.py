"""Few of a process' threads work on requests at a time, because they share one interpreter.

Each request lets go of Python's lock some ten times: for Redis, for Postgres, for a line of the log. Where
all threads that have a request compete to get it back, one wakes another on another core each time, which
costs half as much again as the request itself. Two keep the interpreter busy, each while the other waits.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# A request that works takes some milliseconds; one that takes longer waits: for a deed, or a slow client.
_WORKS_SECONDS: Final = 0.01


class Turns:
    """So many turns, given in the order in which they are asked for: a thread that has just ended its turn
    would be the first to ask again, and whoever has to be woken the last to get one.

    A turn whose holder seems to wait for something is taken over by the next that wants one, so that
    requests that wait never hold up others for longer than a moment.
    """

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._free = count
        # Who wants a turn, the first of them first; each is locked until a turn is its own.
        self._waiting: deque[threading.Lock] = deque()
        # Who holds a turn, and since when; the oldest first.
        self._held: dict[int, float] = {}

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits for a turn, at most until another's may be taken over; gives it back at the end."""
        self._take()
        with self._lock:
            self._held[threading.get_ident()] = time.monotonic()
        try:
            yield
        finally:
            self.give_back()

    def give_back(self) -> None:
        """Ends this thread's turn. Nothing where it was taken over: who did that gives it back."""
        with self._lock:
            if self._held.pop(threading.get_ident(), None) is None:
                return
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1

    def _take(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        while not mine.acquire(timeout=_WORKS_SECONDS):
            if self._take_over(mine):
                return

    def _take_over(self, mine: threading.Lock) -> bool:
        """Whether the first that waits is this one, and some holder has had its turn for longer than work
        takes: then that turn is this one's.
        """
        with self._lock:
            # One that was given its turn since it looked waits no more.
            if not self._waiting or self._waiting[0] is not mine:
                return False
            holder, since = next(iter(self._held.items()), (0, time.monotonic()))
            if time.monotonic() - since < _WORKS_SECONDS:
                return False
            del self._held[holder]
            self._waiting.popleft()
            return True
