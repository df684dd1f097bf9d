"""How gunicorn's threads serve connections; and what it refuses itself, as a problem and not as HTML.

The reasons that gunicorn would log quote the request, and with it perhaps a key; ours don't.
"""

import json
import select
import threading
from typing import Any, Final

import structlog
from gunicorn import glogging, util
from gunicorn.http import errors
from gunicorn.workers.gthread import ThreadWorker

log = structlog.get_logger(__name__)

_REFUSALS: tuple[tuple[type[Exception], int, str, str], ...] = (
    (errors.LimitRequestHeaders, 431, "Request Header Fields Too Large", "A header is too long."),
    (errors.LimitRequestLine, 414, "URI Too Long", "The address is too long."),
    (errors.UnsupportedTransferCoding, 501, "Not Implemented", "Send the body plain or chunked."),
    (errors.ParseException, 400, "Bad Request", "This is not HTTP as we read it."),
)


# A client that is busy sends its next request within this after an answer.
_LINGER_MS: Final = 10


class ProblemWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Keeps a thread at its connection for a moment after an answer, in case the next request follows.

    gunicorn would hand the connection to its main thread and get it back from there; under load this costs
    more than all else that a request does. Half the threads at most linger, and none while work is waiting.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._may_linger = threading.BoundedSemaphore(max(1, self.cfg.threads // 2))

    def handle(self, conn: Any) -> Any:
        """What gunicorn makes of it: True for a connection that is kept open."""
        outcome = super().handle(conn)
        while outcome is True and self._has_next(conn):
            outcome = super().handle(conn)
        return outcome

    def _has_next(self, conn: Any) -> bool:
        """Whether the connection's next request comes at once."""
        # What was read ahead no longer makes the socket readable; gunicorn looks for it itself.
        if not self.alive or conn.parser.unreader.buf.getvalue():
            return False
        if self.tpool._work_queue.qsize() or not self._may_linger.acquire(blocking=False):  # noqa: SLF001 - nobody else knows
            return False
        try:
            poll = select.poll()
            poll.register(conn.sock, select.POLLIN)
            # A connection that the client closes is readable, too: gunicorn closes it.
            return bool(poll.poll(_LINGER_MS)) and self.alive
        finally:
            self._may_linger.release()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        for kind, status, title, detail in _REFUSALS:
            if isinstance(exc, kind):
                log.warning("request_refused", status=status, reason=type(exc).__name__)
                _write(client, status, title, detail)
                return
        super().handle_error(req, client, addr, exc)


class Log(glogging.Logger):  # type: ignore[misc]  # as above
    """Without an access log: RequestIdMiddleware writes ours, and gunicorn would gather one for nobody."""

    access_log_enabled = False


def _write(client: Any, status: int, title: str, detail: str) -> None:
    body = json.dumps(
        {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": "bad_request"}
    )
    head = (
        f"HTTP/1.1 {status} {title}\r\nConnection: close\r\n"
        f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    util.write_nonblock(client, f"{head}{body}".encode("ascii"))
