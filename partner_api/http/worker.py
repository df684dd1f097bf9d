"""How gunicorn's threads serve connections; and what it refuses itself, as a problem and not as HTML.

The reasons that gunicorn would log quote the request, and with it perhaps a key; ours don't.
"""

import contextlib
import http
import json
import selectors
import time
from functools import partial
from typing import Any, Final

import structlog
from gunicorn import glogging, util
from gunicorn.http import errors
from gunicorn.workers import gthread

from partner_api.http.lingering import Lingering
from partner_api.http.sharing import OpenConnections
from partner_api.http.turns import Turns

log = structlog.get_logger(__name__)

_REFUSALS: tuple[tuple[type[Exception], str, str], ...] = (
    # Subclasses first: a header that we would have sent is no fault of the client's.
    (errors.InvalidResponseHeader, "internal_error", "The error was logged under this request id."),
    (errors.InvalidResponseHeaderName, "internal_error", "The error was logged under this request id."),
    (errors.LimitRequestHeaders, "headers_too_large", "A header is too long, or there are too many."),
    (errors.LimitRequestLine, "uri_too_long", "The address is too long."),
    (errors.ParseException, "bad_request", "This is not HTTP as we read it."),
)


# Requests of one process that are worked on at a time: one, and another for while it waits.
_AT_ONCE: Final = 2
# A process that has more connections than another lets it take a new one, and takes those that nobody took
# within this: the other may be busy, or ending.
_YIELD_SECONDS: Final = 0.001
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


# gunicorn loads this module before it forks.
open_connections: Final = OpenConnections()


class ProblemWorker(gthread.ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Keeps a thread at its connection for a moment after an answer (partner_api.http.lingering); lets few
    threads work at a time (partner_api.http.turns); and has the processes of a server share its connections
    (partner_api.http.sharing).
    """

    _open: int
    _lingering: Lingering

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turns = Turns(_AT_ONCE)
        # Connections that the pool has, or that wait for one of its threads. Only the main thread counts.
        self._with_the_pool = 0

    def get_thread_pool(self) -> Any:
        # After the fork: whom a process calls back are its own threads. Half of them at most linger.
        self._lingering = Lingering(max(1, self.cfg.threads // 2), self._is_work_waiting)
        return super().get_thread_pool()

    @property
    def nr_conns(self) -> int:
        """gunicorn's count of the connections of this process."""
        return self._open

    @nr_conns.setter
    def nr_conns(self, count: int) -> None:
        self._open = count
        open_connections.set(self.age, count)

    def accept(self, listener: Any) -> None:
        # One more or less is no matter, and to look who has fewer must not cost each connection a moment.
        if open_connections.ahead_of_least(self.age) > 1:
            time.sleep(_YIELD_SECONDS)
        super().accept(listener)

    def enqueue_req(self, conn: Any) -> None:
        if not (conn.initialized or conn.data_ready):
            self._watch(conn)
            return
        self._with_the_pool += 1
        super().enqueue_req(conn)
        if self._is_work_waiting():
            self._lingering.call_back()

    def finish_request(self, conn: Any, fs: Any) -> None:
        self._with_the_pool -= 1
        super().finish_request(conn, fs)

    def _watch(self, conn: Any) -> None:
        """A new connection waits for its first request without a thread: gunicorn would give it one for five
        seconds, and clients that connect ahead or say nothing would soon have them all.
        """
        conn.sock.setblocking(False)  # noqa: FBT003 - socket's signature
        conn.set_timeout()
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def murder_pending(self) -> None:
        """Closes those that never said anything; soon, once this process ends: gunicorn would wait."""
        if not self.alive:
            deadline = time.monotonic() + gthread.STOP_KEEPALIVE_LINGER
            for conn in self.pending_conns:
                conn.timeout = min(conn.timeout, deadline)
        super().murder_pending()

    def _is_work_waiting(self) -> bool:
        return bool(self._with_the_pool > self.cfg.threads)

    def handle(self, conn: Any) -> Any:
        """What gunicorn makes of it: True for a connection that is kept open."""
        outcome = self._handle(conn)
        while outcome is True and self._has_next(conn):
            outcome = self._handle(conn)
        return outcome

    def _handle(self, conn: Any) -> Any:
        with self._turns.turn():
            return super().handle(conn)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """One that writes goes on without a turn: at its commit it waits for a disk, better with others."""
        if req.method not in _READS:
            self._turns.give_back()
        return super().handle_request(req, conn)

    def _has_next(self, conn: Any) -> bool:
        """Whether the connection's next request comes at once."""
        # What was read ahead no longer makes the socket readable; gunicorn looks for it itself.
        if not self.alive or conn.parser.unreader.buf.getvalue():
            return False
        return self._lingering.has_next(conn.sock) and self.alive

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        for kind, code, detail in _REFUSALS:
            if isinstance(exc, kind):
                request_id = _write(client, code, detail)
                log.warning("request_refused", code=code, reason=type(exc).__name__, request_id=request_id)
                return
        request_id = _write(client, "internal_error", "The error was logged under this request id.")
        log.error("request_broke", exc_info=exc, request_id=request_id)


class Log(glogging.Logger):  # type: ignore[misc]  # as above
    """Without an access log: AccessLogMiddleware writes ours, and gunicorn would gather one for nobody."""

    access_log_enabled = False


def _write(client: Any, code: str, detail: str) -> str:
    """Sends the problem; the request id that was made for it."""
    from partner_api.http import request_id  # noqa: PLC0415 - it needs the settings
    from partner_api.http.problems import CONTENT_TYPE, Problem  # noqa: PLC0415 - as above

    problem = Problem(code, detail)
    made = request_id.accept_or_make("")
    body = json.dumps(problem.as_dict(made)).encode()
    head = (
        f"HTTP/1.1 {problem.status} {http.HTTPStatus(problem.status).phrase}\r\nConnection: close\r\n"
        f"{request_id.HEADER}: {made}\r\n"
        f"Content-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with contextlib.suppress(OSError):
        util.write_nonblock(client, head.encode("ascii") + body)
    return made
