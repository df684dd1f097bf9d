"""What a connection's client has sent so far: a request gets a thread once it is there, not while it comes.

A thread that reads waits for its client, and few clients that send half of a request and stop would have
them all. So requests are gathered here without one. This says only when to let gunicorn's parser look: where
a request ends is the parser's to decide.
"""

import enum
import errno
import io
import re
import socket
import struct
import time
from typing import Any, Final

from gunicorn.http.unreader import SocketUnreader

# How long a client may take to send a request, and how long it may do nothing while a thread reads the body
# or writes the answer. The kernel measures the latter, which costs a request nothing.
PATIENCE_SECONDS: float = 20
# All of a body that a thread reads.
_BODY_SECONDS: Final = 60
# What is gathered of one request at the most; of one with a larger body a thread reads the rest.
_MOST_BYTES: Final = 64 * 1024
_END: Final = b"\r\n\r\n"
_AT_ONCE_BYTES: Final = 16 * 1024
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,8})[ \t]*(?:\r\n|$)", re.IGNORECASE)
# It sends the body once it is told to, by a thread.
_EXPECTS: Final = re.compile(rb"\r\nexpect:", re.IGNORECASE)


class Arrived(enum.Enum):
    NOTHING = enum.auto()
    PART = enum.auto()
    ENOUGH = enum.auto()
    # No head is as long.
    TOO_MUCH = enum.auto()
    # It will not send the rest.
    GONE = enum.auto()


class Incoming(SocketUnreader):  # type: ignore[misc]  # gunicorn has no types
    """In place of gunicorn's own reader of a socket."""

    def __init__(self, sock: Any) -> None:
        super().__init__(sock)
        seconds = int(PATIENCE_SECONDS)
        limit = struct.pack("ll", seconds, int((PATIENCE_SECONDS - seconds) * 1_000_000))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self.buf: io.BytesIO
        self._ends: float | None = None

    def look(self) -> Arrived:
        """Takes what is there of the next request, without waiting."""
        self._ends = None
        data = self.buf.getvalue()
        arrived = _arrived(data) if data else Arrived.NOTHING
        if arrived is Arrived.ENOUGH:
            return arrived
        try:
            more = self.sock.recv(_AT_ONCE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return arrived
        except OSError:
            return Arrived.GONE
        if not more:
            # Of a body that ends too early the application tells, to a client that may still read.
            return Arrived.ENOUGH if _END in data else Arrived.GONE
        data += more
        self.buf = io.BytesIO(data)
        return _arrived(data)

    def chunk(self, size_hint: int | None = None) -> bytes:
        """What the parser waits for, in a thread. Raises TimeoutError."""
        now = time.monotonic()
        if self._ends is None:
            self._ends = now + _BODY_SECONDS
        try:
            if now < self._ends:
                return bytes(super().chunk(size_hint))
        except BlockingIOError:
            pass
        # With the number of a client that is gone: gunicorn would log another as a fault of ours.
        raise TimeoutError(errno.ECONNRESET, "the client sends too slowly")


def _arrived(data: bytes) -> Arrived:
    # Some clients end a body with an empty line, which is no part of it.
    head, is_whole, _ = data.lstrip(b"\r\n").partition(_END)
    if not is_whole:
        # What has other ends of lines is for the parser to refuse.
        if b"\n\n" in head:
            return Arrived.ENOUGH
        if len(data) > _MOST_BYTES:
            return Arrived.TOO_MUCH
        return Arrived.PART if head else Arrived.NOTHING
    if head.startswith(b"GET "):
        return Arrived.ENOUGH
    length = _LENGTH.search(head)
    total = len(head) + len(_END) + int(length[1]) if length else 0
    if len(data) < total <= _MOST_BYTES and not _EXPECTS.search(head):
        return Arrived.PART
    return Arrived.ENOUGH
