"""One POST to an address that was checked, within one time limit over all of it, whatever answers.

Plain sockets rather than an HTTP client: those look names up again, follow redirects, read proxies and
passwords from the environment, and limit the pause between two bytes but not the whole.
"""

import functools
import http.client
import io
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Final

from django.conf import settings

from webhooks.addresses import Refused, Target, Unresolved, UnresolvedInTime, addresses_of, parse

KEPT_BODY_BYTES: Final = 1024
MAX_HEAD_BYTES: Final = 32 * 1024
# Once the status is here the answer is known; the body is read for the log only.
BODY_SECONDS: Final = 2.0
CONNECT_SECONDS: Final = 5.0
_CHUNK: Final = 4096


@dataclass(frozen=True)
class Answer:
    """What an endpoint answered. `body` is its first kilobyte."""

    status: int
    retry_after: str
    body: bytes


class NoAnswer(Exception):
    """`code` is short and stable: it is logged, counted and shown."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def post(url: str, body: bytes, headers: dict[str, str]) -> Answer:
    """Raises NoAnswer."""
    clock = _Clock(settings.WEBHOOKS_TIMEOUT_SECONDS)
    try:
        target = parse(url)
        addresses = addresses_of(target, seconds=clock.left())
    except UnresolvedInTime as error:
        raise NoAnswer("dns_timeout") from error
    except Unresolved as error:
        raise NoAnswer("name_not_resolved") from error
    except Refused as error:
        raise NoAnswer("address_refused") from error
    try:
        with _connected(target, addresses, clock) as connection:
            connection.settimeout(clock.left())
            connection.sendall(_request(target, body, headers))
            return _answer(connection, clock)
    except TimeoutError as error:
        raise NoAnswer("timeout") from error
    except ssl.SSLCertVerificationError as error:
        raise NoAnswer("certificate_invalid") from error
    except ssl.SSLError as error:
        raise NoAnswer("tls_failed") from error
    except ConnectionRefusedError as error:
        raise NoAnswer("connection_refused") from error
    except OSError as error:
        raise NoAnswer("connection_failed") from error


class _Clock:
    def __init__(self, seconds: float) -> None:
        self.ends_at = time.monotonic() + seconds

    def left(self, at_most: float | None = None) -> float:
        """Seconds. Raises TimeoutError when there are none."""
        left = self.ends_at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left if at_most is None else min(left, at_most)


def _connected(target: Target, addresses: list[str], clock: _Clock) -> socket.socket:
    """To the first address that takes the connection."""
    for position, address in enumerate(addresses):
        try:
            # An address, so nothing is looked up here.
            plain = socket.create_connection((address, target.port), timeout=clock.left(CONNECT_SECONDS))
        except OSError:
            if position == len(addresses) - 1:
                raise
            continue
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if target.scheme == "http":
                return plain
            plain.settimeout(clock.left())
            return _tls(settings.WEBHOOKS_CA_BUNDLE).wrap_socket(plain, server_hostname=target.host)
        except BaseException:
            plain.close()
            raise
    raise ConnectionRefusedError


@functools.cache
def _tls(ca_bundle: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_bundle or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _request(target: Target, body: bytes, headers: dict[str, str]) -> bytes:
    lines = [
        f"POST {target.path} HTTP/1.1",
        f"Host: {target.authority}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "Accept: */*",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def _answer(connection: socket.socket, clock: _Clock) -> Answer:
    """Raises NoAnswer for what is not HTTP, TimeoutError when the head does not come in time."""
    received, total = b"", 0
    while True:
        head, found, rest = received.partition(b"\r\n\r\n")
        if found:
            status, fields = _read_head(head + found)
            if status >= http.client.OK:
                break
            # 100 and the like announce the answer that follows; they are part of the total.
            received = rest
            continue
        if total > MAX_HEAD_BYTES:
            raise NoAnswer("headers_too_large")
        chunk = _receive(connection, clock.left())
        if not chunk:
            raise NoAnswer("answer_invalid" if received else "connection_closed")
        received += chunk
        total += len(chunk)
    body = _body(connection, clock, rest, fields)
    return Answer(status, fields.get("Retry-After", ""), body)


def _read_head(head: bytes) -> tuple[int, http.client.HTTPMessage]:
    status_line, _, fields = head.partition(b"\r\n")
    version, _, rest = status_line.partition(b" ")
    number = rest.partition(b" ")[0]
    if version not in {b"HTTP/1.1", b"HTTP/1.0"} or not number.isdigit() or len(number) != 3:  # noqa: PLR2004 - digits
        raise NoAnswer("answer_invalid")
    try:
        return int(number), http.client.parse_headers(io.BytesIO(fields))
    except http.client.HTTPException as error:
        raise NoAnswer("headers_too_large") from error


def _body(connection: socket.socket, clock: _Clock, begun: bytes, fields: http.client.HTTPMessage) -> bytes:
    """The first kilobyte, or what of it comes in time. Never fails: the status was received."""
    is_chunked = "chunked" in fields.get("Transfer-Encoding", "").lower()
    length = fields.get("Content-Length", "")
    wanted = KEPT_BODY_BYTES
    if length.isascii() and length.isdigit() and not is_chunked:
        wanted = min(wanted, int(length[:10]))
    ends_at = _Clock(BODY_SECONDS)
    body = begun
    while len(body) < wanted and not (is_chunked and body.endswith(b"0\r\n\r\n")):
        try:
            chunk = _receive(connection, clock.left(ends_at.left()))
        except OSError:
            break
        if not chunk:
            break
        body += chunk
    return (_dechunked(body) if is_chunked else body)[:wanted]


def _dechunked(body: bytes) -> bytes:
    text = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        try:
            length = int(size.split(b";")[0], 16)
        except ValueError:
            break
        text += body[:length]
        body = body[length + 2 :]
    return text


def _receive(connection: socket.socket, seconds: float) -> bytes:
    connection.settimeout(seconds)
    return connection.recv(_CHUNK)
