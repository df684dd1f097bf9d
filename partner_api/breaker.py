"""Keeps requests from waiting for a server that does not answer: after an error all go around it for a
moment, then one asks, and the others still go around. Each process has its own. It stands below both
`http` and `ops`.
"""

import threading
import time


class Breaker:
    """Whoever `may_ask` says afterwards that it `failed` or `succeeded`; both answer whether that is news."""

    def __init__(self) -> None:
        self._retry_at = 0.0
        self._lock = threading.Lock()

    def may_ask(self, *, after_seconds: float) -> bool:
        """False while it is open; once so many seconds have passed, True for one."""
        if not self._retry_at:
            return True
        with self._lock:
            if time.monotonic() < self._retry_at:
                return False
            self._retry_at = time.monotonic() + after_seconds
            return True

    def failed(self, *, after_seconds: float) -> bool:
        with self._lock:
            is_news = not self._retry_at
            self._retry_at = time.monotonic() + after_seconds
        return is_news

    def succeeded(self) -> bool:
        if not self._retry_at:
            return False
        self._retry_at = 0.0
        return True
