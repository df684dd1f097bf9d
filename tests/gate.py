"""A gate before a server: open, or as one that hangs, or as one that nobody listens at any more."""

import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Gate:
    """Listens at `port` and hands on to `server`, of which it may let nothing through."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._may_pass = threading.Event()
        self._may_pass.set()
        self._taken: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, trace: TracebackType | None) -> None:
        self.refuse()
        for thread in self._threads:
            thread.join()

    def open(self) -> None:
        """What was held back goes on its way, and new connections are taken again."""
        if self._listener.fileno() == -1:
            self._listener = self._listen(self.port)
        self._may_pass.set()

    def hang(self) -> None:
        """Connections are taken and kept, and no byte goes through."""
        self._may_pass.clear()

    def refuse(self) -> None:
        """All connections are cut, and no new one is taken."""
        for one in (self._listener, *self._taken):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()
        self._taken.clear()
        self._may_pass.set()

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self._run(self._take, listener)
        return listener

    def _run(self, target: Callable[..., None], *args: socket.socket) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _take(self, listener: socket.socket) -> None:
        while True:
            try:
                near = listener.accept()[0]
            except OSError:
                return
            self._taken.append(near)
            self._run(self._connect, near)

    def _connect(self, near: socket.socket) -> None:
        self._may_pass.wait()
        try:
            far = socket.create_connection(self._server)
        except OSError:
            near.close()
            return
        self._taken.append(far)
        self._run(self._hand_on, near, far)
        self._hand_on(far, near)

    def _hand_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self._may_pass.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass
