"""Few of a process' threads work on requests at a time, because they share one interpreter.

Each request lets go of Python's lock some ten times: for Redis, for Postgres, for a line of the log. Where
all threads that have a request compete to get it back, one wakes another on another core each time, which
costs half as much again as the request itself. Two keep the interpreter busy, each while the other waits.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Final

# A request that works takes some milliseconds; one that takes longer waits: for a deed, or a slow client.
_WORKS_SECONDS: Final = 0.01


class Turns:
    """So many turns. One whose holder seems to wait for something is taken over by the next that wants one:
    requests that wait never hold up others for longer than a moment."""

    def __init__(self, count: int) -> None:
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(count):
            self._free.put(None)
        # Who holds a turn, and since when; the oldest first. Each step on it is one that a thread does whole.
        self._held: dict[int, float] = {}

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits for a turn, at most until another's may be taken over; gives it back at the end."""
        self._take()
        self._held[threading.get_ident()] = time.monotonic()
        try:
            yield
        finally:
            self.give_back()

    def give_back(self) -> None:
        """Ends this thread's turn. Nothing where it was taken over: who did that gives it back."""
        if self._held.pop(threading.get_ident(), None) is not None:
            self._free.put(None)

    def _take(self) -> None:
        while True:
            try:
                self._free.get(timeout=_WORKS_SECONDS)
            except Empty:
                if not self._take_over():
                    continue
            return

    def _take_over(self) -> bool:
        """Whether there was one whose holder has had it for longer than work takes."""
        for holder, since in tuple(self._held.items()):
            if time.monotonic() - since < _WORKS_SECONDS:
                return False
            if self._held.pop(holder, None) is not None:
                return True
        return False
