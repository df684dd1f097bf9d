"""Threads that stay with a connection for a moment after an answer, in case the next request follows.

Handing a connection to the thread that watches all of them, and getting it back from there, wakes two
threads for each request, which costs more than all else that a request does, and is most of its tail.
"""

import os
import select
import threading
import time
from collections.abc import Callable
from typing import Any, Final

# A client that is busy sends its next request within this after an answer.
_LINGER_SECONDS: Final = 0.1


class Lingering:
    """So many threads at most linger, none while it is wanted elsewhere: work waits, and no thread is free.

    Whoever makes `is_wanted` true must then call one back.
    """

    def __init__(self, most: int, is_wanted: Callable[[], bool]) -> None:
        self._most = most
        self._is_wanted = is_wanted
        self._lock = threading.Lock()
        self._lingers = 0
        # How many of them are called back, a byte in the pipe for each; whoever reads it is the one.
        self._are_called = 0
        self._called, self._call = os.pipe()
        os.set_blocking(self._called, False)

    def has_next(self, connection: Any) -> bool:
        """Waits for the next request of a socket. False when none comes, or this thread is called back.

        A connection that its client closes looks as if a request came: reading it tells.
        """
        with self._lock:
            if self._lingers == self._most:
                return False
            self._lingers += 1
        try:
            # Looked at once one can be called back: what came before that would be missed otherwise.
            return not self._is_wanted() and self._wait(connection)
        finally:
            with self._lock:
                self._lingers -= 1

    def call_back(self) -> None:
        """Has one thread, if any lingers, stop waiting."""
        with self._lock:
            if self._are_called < self._lingers:
                self._are_called += 1
                os.write(self._call, b"\0")

    def _wait(self, connection: Any) -> bool:
        ends = time.monotonic() + _LINGER_SECONDS
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        poll.register(self._called, select.POLLIN)
        while (left := ends - time.monotonic()) > 0:
            ready = {descriptor for descriptor, _ in poll.poll(left * 1000)}
            if connection.fileno() in ready:
                return True
            if ready and self._is_called():
                return False
        return False

    def _is_called(self) -> bool:
        """Whether this thread is the one: all that linger are woken."""
        try:
            os.read(self._called, 1)
        except BlockingIOError:
            return False
        with self._lock:
            self._are_called -= 1
        return True
