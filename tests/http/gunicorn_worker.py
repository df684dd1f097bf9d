"""gunicorn's worker, as it runs in a process of its own, here in a thread; and a client of it."""

import contextlib
import os
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger

from partner_api.http.worker import ProblemWorker

LARGE = 64 * 1024 * 1024


@pytest.fixture
def worker() -> Iterator[ProblemWorker]:
    """Two threads, one of which may linger; `/slow` waits for its `may_end`."""
    with stopped_worker() as made, running(made):
        yield made


@contextmanager
def stopped_worker(**settings: Any) -> Iterator[ProblemWorker]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    config = Config()
    for name, value in {"threads": 2, **settings}.items():
        config.set(name, value)
    config.set("worker_tmp_dir", "/dev/shm" if os.path.isdir("/dev/shm") else None)  # noqa: PTH112, S108
    made = ProblemWorker(1, os.getppid(), [listener], None, 30, config, Logger(config))
    made.address = listener.getsockname()
    made.may_end = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = b"ok"
        if environ["PATH_INFO"] == "/slow":
            assert made.may_end.wait(20)
        if environ["PATH_INFO"] == "/large":
            body = b" " * LARGE
        try:
            read = environ["wsgi.input"].read() if environ["PATH_INFO"] != "/unread" else b""
        except TimeoutError:
            read = b"late"
        start_response("200 OK", [("Content-Length", str(len(body))), ("X-Read", read.decode())])
        return [body]

    made.wsgi = app
    try:
        yield made
    finally:
        listener.close()
        made.tmp.close()


@contextmanager
def running(made: ProblemWorker) -> Iterator[None]:
    made.tpool = made.get_thread_pool()
    made.poller = selectors.DefaultSelector()
    made.method_queue.init()
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield
    finally:
        made.may_end.set()
        made.handle_exit(None, None)
        thread.join(20)
    assert not thread.is_alive()


class Client:
    def __init__(self, worker: ProblemWorker) -> None:
        self._socket = socket.create_connection(worker.address, timeout=20)

    def send(self, path: str) -> None:
        self.say(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

    def say(self, data: bytes) -> None:
        self._socket.sendall(data)

    def ends(self) -> None:
        """Sends no more, and still reads."""
        self._socket.shutdown(socket.SHUT_WR)

    def answer(self) -> str:
        return self.head().split("\r\n")[0]

    def head(self) -> str:
        data = b""
        while not data.endswith(b"\r\n\r\nok"):
            chunk = self._socket.recv(1000)
            assert chunk, "closed"
            data += chunk
        return data.decode()

    def rest(self) -> bytes:
        """All that comes until the other side has closed."""
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := self._socket.recv(1 << 20):
                data += chunk
        return data

    def is_closed(self) -> bool:
        return self.rest() == b""

    def close(self) -> None:
        self._socket.close()
