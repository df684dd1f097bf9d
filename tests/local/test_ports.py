"""Ports for servers that are about to be started."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from partner_api.local import ports

_OTHER = """
import sys
from partner_api.local import ports
ports._PORTS = [int(port) for port in sys.argv[1:]]
print(ports.free_port(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Only two ports are to be had."""
    claims: list[int] = []
    monkeypatch.setattr(ports, "_claims", claims)
    pair = [ports.free_port(), ports.free_port()]
    _let_go(claims)
    monkeypatch.setattr(ports, "_PORTS", pair)
    yield pair
    _let_go(claims)


def _let_go(claims: list[int]) -> None:
    while claims:
        os.close(claims.pop())


def test_no_port_is_given_twice(two: list[int]) -> None:
    assert {ports.free_port(), ports.free_port()} == set(two)
    with pytest.raises(OSError, match="no free port"):
        ports.free_port()


def test_no_port_is_given_on_which_someone_listens(two: list[int]) -> None:
    with socket.create_server(("127.0.0.1", two[0])):
        assert ports.free_port() == two[1]


def test_processes_are_not_given_the_same_one_until_one_ends(two: list[int]) -> None:
    argv = [sys.executable, "-c", _OTHER, *map(str, two)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(argv, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        theirs = int(other.stdout.readline())
        assert {theirs, ports.free_port()} == set(two)
        with pytest.raises(OSError, match="no free port"):
            ports.free_port()
        other.communicate()
    assert ports.free_port() == theirs


def test_they_are_none_that_an_outgoing_connection_is_given() -> None:
    """Also while a server that is started anew is down: connecting to it would take its port."""
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if not given.exists():
        pytest.skip("Linux tells its range only here")
    lowest = int(given.read_text().split()[0])
    if lowest < 32_768:
        pytest.skip(
            f"this machine gives outgoing connections ports from {lowest} on, Linux as it comes does not"
        )
    assert max(ports._PORTS) < lowest
