"""The processes of a server share the connections that clients keep."""

import socket
import time
from contextlib import ExitStack
from urllib.parse import urlsplit

import psutil

from tests.e2e.conftest import Deployment

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def workers(deployment: Deployment) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(deployment.children[0].process.pid).children()
    return found


def shares(deployment: Deployment) -> list[int]:
    """The open connections of each web process."""
    port = urlsplit(deployment.url).port
    return [
        sum(
            one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port
            for one in worker.net_connections("tcp")
        )
        for worker in workers(deployment)
    ]


def keep_one(deployment: Deployment, stack: ExitStack) -> None:
    parts = urlsplit(deployment.url)
    assert parts.hostname is not None
    connection = stack.enter_context(socket.create_connection((parts.hostname, parts.port or 80), timeout=20))
    connection.sendall(REQUEST)
    assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def wait_for_both(deployment: Deployment) -> None:
    """A server answers as soon as its first process does."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with ExitStack() as stack:
            for _ in range(4):
                keep_one(deployment, stack)
            found = shares(deployment)
            if len(found) == 2 and min(found):
                return
    message = "one process takes all connections"
    raise AssertionError(message)


def test_a_process_that_came_later_takes_new_connections_until_it_has_as_many(
    deployment: Deployment,
) -> None:
    deployment.start_web(WEB_WORKERS="2")
    wait_for_both(deployment)
    workers(deployment)[0].kill()
    with ExitStack() as stack:
        # The other is alone while the one in its place starts.
        for _ in range(12):
            keep_one(deployment, stack)
        assert max(shares(deployment)) == 12
        wait_for_both(deployment)
        for _ in range(10):
            keep_one(deployment, stack)
        found = shares(deployment)
        assert sum(found) >= 22
        assert max(found) - min(found) <= 6, found
