"""How gunicorn's connections get threads: none while its client has not sent a request, or has its answer."""

import itertools
import select
import selectors
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import structlog
from gunicorn import glogging
from gunicorn.http import get_parser
from gunicorn.http.errors import LimitRequestHeaders
from gunicorn.workers import gthread

from partner_api.http import arriving
from partner_api.http.arriving import Arrived, Incoming
from partner_api.http.lingering import Lingering
from partner_api.http.refusing import refuse
from partner_api.http.sharing import OpenConnections
from partner_api.http.turns import Turns

log = structlog.get_logger(__name__)

# Requests of one process that are worked on at a time: one, and another for while it waits.
_AT_ONCE: Final = 2
# A process that has more connections than another lets it take a new one, and takes those that nobody took
# within this: the other may be busy, or ending.
_YIELD_SECONDS: Final = 0.001
# A client that connects has this to say something, also where others wait for its place.
_SPEAKS_SECONDS: Final = 1.0
# How long a client may take to close a connection after us, and what is read of it at a time meanwhile.
_LEAVES_SECONDS: Final = 2.0
_UNREAD_BYTES: Final = 64 * 1024
# How long the rest of a body that nobody read may take to come, for the connection to be kept.
_UNREAD_SECONDS: Final = 0.2
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


# gunicorn loads this module before it forks.
open_connections: Final = OpenConnections()


class ProblemWorker(gthread.ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Gives a connection a thread once a request is there (partner_api.http.arriving), keeps it there for a
    moment after an answer (lingering), lets few threads work at a time (turns), and has the processes of a
    server share its connections (sharing).
    """

    _open: int
    _lingering: Lingering

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turns = Turns(_AT_ONCE)
        # Connections that the pool has, or that wait for one of its threads. Only the main thread counts.
        self._with_the_pool = 0
        # Connections that wait without a thread, each with its end: those that sent a part of a request, and
        # those whose last answer was sent. As for gunicorn's own, the first of them ends first.
        self._arriving: dict[Any, float] = {}
        self._leaving: dict[Any, float] = {}

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

    def set_accept_enabled(self, enabled: bool) -> None:  # noqa: FBT001 - gunicorn's signature
        super().set_accept_enabled(enabled)
        if not (enabled or self.alive):
            self._accept_the_last()

    def _accept_the_last(self) -> None:
        """Who has come when this process ends is answered; who comes then goes to another, or is told by a
        closed door at once. gunicorn would cut both off at its very end.
        """
        # gunicorn may ask twice: where no place is left, and at the end.
        while self.sockets:
            listener = self.sockets.pop()
            while self.nr_conns < self.worker_connections and select.select([listener], [], [], 0)[0]:
                super().accept(listener)
            listener.close()

    def enqueue_req(self, conn: Any) -> None:
        """Gives a connection a thread once a request is there; until then it waits without one."""
        if conn.parser is None:
            conn.parser = get_parser(self.cfg, conn.sock, conn.client)
            conn.parser.unreader = Incoming(conn.sock)
        arrived = conn.parser.unreader.look()
        if arrived is Arrived.PART:
            self._arriving.setdefault(conn, time.monotonic() + arriving.PATIENCE_SECONDS)
            self._watch(conn, self._on_more)
            return
        self._arriving.pop(conn, None)
        if arrived is Arrived.NOTHING:
            conn.set_timeout()
            self.pending_conns.append(conn)
            self._watch(conn, self.on_pending_socket_readable)
        elif arrived is Arrived.TOO_MUCH:
            refuse(conn.sock, LimitRequestHeaders(""))
            self._leave(conn)
        elif arrived is Arrived.GONE:
            self._close(conn)
        else:
            conn.data_ready = True
            self._with_the_pool += 1
            super().enqueue_req(conn)
            if self._is_work_waiting():
                self._lingering.call_back()

    def finish_request(self, conn: Any, fs: Any) -> None:
        self._with_the_pool -= 1
        if not fs.cancelled() and fs.exception() is None and fs.result() is False:
            self._leave(conn)
        else:
            super().finish_request(conn, fs)

    def _watch(self, conn: Any, on_readable: Callable[[Any, Any], None]) -> None:
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(on_readable, conn))

    def _on_more(self, conn: Any, sock: Any) -> None:
        self.poller.unregister(sock)
        self.enqueue_req(conn)

    def _leave(self, conn: Any) -> None:
        """Closes a connection when its client has, or soon, so that the last answer is not lost by what the
        client still sends. gunicorn would wait for that here, and answer nobody for two seconds.
        """
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn)
            return
        self._leaving[conn] = time.monotonic() + _LEAVES_SECONDS
        self._watch(conn, self._on_leaving)

    def _on_leaving(self, conn: Any, sock: Any) -> None:
        try:
            if sock.recv(_UNREAD_BYTES, socket.MSG_DONTWAIT):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        del self._leaving[conn]
        self._drop(conn)

    def murder_pending(self) -> None:
        """Ends what waits without a thread for too long; soon, once this process ends: gunicorn would
        wait.
        """
        now = time.monotonic()
        if not self.alive:
            deadline = now + gthread.STOP_KEEPALIVE_LINGER
            for conn in self.pending_conns:
                conn.timeout = min(conn.timeout, deadline)
            self._arriving = {conn: min(at, deadline) for conn, at in self._arriving.items()}
        super().murder_pending()
        for conn in _expired(self._arriving, now):
            self.poller.unregister(conn.sock)
            refuse(conn.sock, TimeoutError())
            self._leave(conn)
        for conn in _expired(self._leaving, now):
            self._drop(conn)
        self._make_room(now - _SPEAKS_SECONDS)

    def _make_room(self, since: float) -> None:
        """Where no place is left, who has not said all since then gives its own to another."""
        while self.nr_conns >= self.worker_connections:
            conn = next(iter(self._arriving), None)
            if self.pending_conns and self.pending_conns[0].timeout - self.cfg.keepalive <= since:
                self._drop(self.pending_conns.popleft())
            elif conn and self._arriving[conn] - arriving.PATIENCE_SECONDS <= since:
                del self._arriving[conn]
                self._drop(conn)
            else:
                return

    def _drop(self, conn: Any) -> None:
        self.poller.unregister(conn.sock)
        self._close(conn)

    def _close(self, conn: Any) -> None:
        self.nr_conns -= 1
        conn.close()

    def _is_work_waiting(self) -> bool:
        return bool(self._with_the_pool > self.cfg.threads)

    def handle(self, conn: Any) -> Any:
        """What gunicorn makes of it: True for a connection that is kept open."""
        outcome = self._handle(conn)
        while outcome is True and self._has_next(conn):
            outcome = self._handle(conn)
        # What came in place of a request is for the main thread.
        return True if outcome is None else outcome

    def _handle(self, conn: Any) -> Any:
        """None where no request is there."""
        with self._turns.turn():
            # To look lets go of Python's lock, and getting it back without a turn would disturb those that
            # have one.
            is_there = conn.parser.unreader.look() is Arrived.ENOUGH
            return super().handle(conn) if is_there else None

    def handle_request(self, req: Any, conn: Any) -> Any:
        """One that writes goes on without a turn: at its commit it waits for a disk, better with others."""
        if req.method not in _READS:
            self._turns.give_back()
        try:
            return super().handle_request(req, conn)
        except BlockingIOError:
            log.warning("answer_not_taken")
            return False

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:  # noqa: FBT001 - gunicorn's signature
        """Whether the connection can go on. gunicorn would ask the kernel twice, though nothing is left of
        the body, and have this thread wait five seconds for what nobody reads.
        """
        if not keepalive:
            return False
        if getattr(conn.parser.mesg.body.reader, "length", None) == 0:
            return True
        return bool(conn.parser.finish_body(deadline=time.monotonic() + _UNREAD_SECONDS))

    def _has_next(self, conn: Any) -> bool:
        """Whether the connection's next request comes at once."""
        # What was read ahead no longer makes the socket readable; gunicorn looks for it itself.
        if not self.alive or conn.parser.unreader.buf.getvalue():
            return False
        return self._lingering.has_next(conn.sock) and self.alive

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        refuse(client, exc)


class Log(glogging.Logger):  # type: ignore[misc]  # as above
    """Without an access log: AccessLogMiddleware writes ours, and gunicorn would gather one for nobody."""

    access_log_enabled = False


def _expired(waiting: dict[Any, float], now: float) -> list[Any]:
    """Takes out those whose time is over."""
    expired = list(itertools.takewhile(lambda conn: waiting[conn] <= now, waiting))
    for conn in expired:
        del waiting[conn]
    return expired
