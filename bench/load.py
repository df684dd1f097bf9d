"""A client that costs little: prepared requests over kept-alive connections, in a process of its own.

`python -m bench.load` reads its task as JSON from standard input, and prints what it measured as JSON.
Closed-loop load sends the next request when an answer has come; open-loop load sends at fixed times,
and counts an answer's time from when the request was due.
"""

import json
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Final

_LIMIT: Final = 10 * 1024 * 1024


@dataclass
class Task:
    """`requests` are sent in turn by each of `connections`, for `seconds`. `rate` 0 is closed-loop.

    Before that they are sent for `warm_seconds` in the same way: of these only the statuses are counted.
    """

    host: str
    port: int
    requests: list[str]
    connections: int
    seconds: float
    rate: float = 0.0
    warm_seconds: float = 0.0


@dataclass
class Measured:
    """Latencies in milliseconds; `statuses` by code."""

    seconds: float
    latencies_ms: list[float] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        return len(self.latencies_ms) / self.seconds

    def percentile(self, part: float) -> float:
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def http(method: str, path: str, *, headers: dict[str, str] | None = None, body: Any = None) -> str:
    """A request as it stands on the wire."""
    content = "" if body is None else json.dumps(body)
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: application/json"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content.encode())}"]
    return "\r\n".join([*lines, "", content])


class _Connection:
    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._open()

    def _open(self) -> None:
        self._socket = socket.create_connection(self._address, timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""

    def send(self, request: bytes) -> str:
        """The status of the answer, which is read to its end."""
        self._socket.sendall(request)
        data = self._rest
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._receive()
        head = data[:end].lower()
        start = head.find(b"content-length:")
        length = int(head[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
        while len(data) < end + 4 + length:
            data += self._receive()
        self._rest = data[end + 4 + length :]
        if b"connection: close" in head:
            self._socket.close()
            self._open()
        return data[9:12].decode("ascii")

    def _receive(self) -> bytes:
        chunk = self._socket.recv(65536)
        if not chunk:
            message = "the server closed the connection"
            raise ConnectionError(message)
        return chunk


def run(task: Task) -> Measured:
    requests = [request.encode() for request in task.requests]
    measured = Measured(0.0)
    lock = threading.Lock()
    started = time.perf_counter()
    counted_from = started + task.warm_seconds
    until = counted_from + task.seconds
    pause = task.connections / task.rate if task.rate else 0.0

    def client(number: int) -> None:
        connection = _Connection(task.host, task.port)
        latencies, statuses = [], dict[str, int]()
        due = started + (number / task.rate if task.rate else 0.0)
        turn = number
        while (now := time.perf_counter()) < until:
            if task.rate:
                if due > now:
                    time.sleep(due - now)
            else:
                due = now
            status = connection.send(requests[turn % len(requests)])
            statuses[status] = statuses.get(status, 0) + 1
            if due >= counted_from:
                latencies.append((time.perf_counter() - due) * 1000)
            turn += task.connections
            due += pause
        with lock:
            measured.latencies_ms += latencies
            for status, count in statuses.items():
                measured.statuses[status] = measured.statuses.get(status, 0) + count

    threads = [threading.Thread(target=client, args=(number,)) for number in range(task.connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    measured.seconds = time.perf_counter() - counted_from
    return measured


if __name__ == "__main__":
    print(json.dumps(asdict(run(Task(**json.loads(sys.stdin.read()))))))
