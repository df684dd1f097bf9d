"""A thread stays with a busy connection, and never at the cost of another's request."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from partner_api.http import lingering
from partner_api.http.lingering import Lingering
from partner_api.http.worker import ProblemWorker
from tests.http.gunicorn_worker import Client, worker  # noqa: F401 - a fixture
from tests.http.test_turns import until

PATIENCE = 60.0


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever lingers is called back, or gets its request: the test ends long before it gives up."""
    monkeypatch.setattr(lingering, "_LINGER_SECONDS", PATIENCE)


@pytest.fixture
def pairs() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    made: list[socket.socket] = []

    def pair() -> tuple[socket.socket, socket.socket]:
        both = socket.socketpair()
        made.extend(both)
        return both

    yield pair
    for one in made:
        one.close()


def test_the_next_request_finds_the_thread_still_there(patient: None, pairs: Any) -> None:
    some, (ours, theirs) = Lingering(1, lambda: False), pairs()
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(some.has_next, ours)
        until(lambda: some._lingers == 1)
        theirs.sendall(b"GET")
        assert found.result(20) is True
    assert some._lingers == 0


def test_none_lingers_for_long(monkeypatch: pytest.MonkeyPatch, pairs: Any) -> None:
    monkeypatch.setattr(lingering, "_LINGER_SECONDS", 0.01)
    ours, _ = pairs()
    assert Lingering(1, lambda: False).has_next(ours) is False


def test_no_more_linger_than_may(patient: None, pairs: Any) -> None:
    some, (ours, theirs), (others, _) = Lingering(1, lambda: False), pairs(), pairs()
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(some.has_next, ours)
        until(lambda: some._lingers == 1)
        assert some.has_next(others) is False
        theirs.sendall(b"GET")
        found.result(20)


def test_each_call_brings_one_back(patient: None, pairs: Any) -> None:
    some, all_pairs = Lingering(3, lambda: False), [pairs() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        found = [pool.submit(some.has_next, ours) for ours, _ in all_pairs]
        until(lambda: some._lingers == 3)
        some.call_back()
        until(lambda: some._lingers == 2)
        some.call_back()
        until(lambda: some._lingers == 1)
        assert sum(each.done() for each in found) <= 2
        for _, theirs in all_pairs:
            theirs.sendall(b"GET")
        assert sorted(each.result(20) for each in found) == [False, False, True]


def test_a_call_that_nobody_could_hear_is_not_kept_for_later(patient: None, pairs: Any) -> None:
    some, (ours, theirs) = Lingering(1, lambda: False), pairs()
    some.call_back()
    theirs.sendall(b"GET")
    assert some.has_next(ours) is True


def test_none_lingers_while_it_is_wanted(patient: None, pairs: Any) -> None:
    ours, theirs = pairs()
    theirs.sendall(b"GET")
    assert Lingering(1, lambda: True).has_next(ours) is False


def test_a_request_without_a_thread_gets_one_that_lingers(patient: None, worker: ProblemWorker) -> None:  # noqa: F811 - a fixture
    lingers, slow, other = Client(worker), Client(worker), Client(worker)
    until(lambda: len(worker.pending_conns) == 3)
    assert worker._with_the_pool == 0, "clients that say nothing hold no thread"
    lingers.send("/")
    assert lingers.answer() == "HTTP/1.1 200 OK"
    until(lambda: worker._lingering._lingers == 1)
    slow.send("/slow")
    until(lambda: worker._with_the_pool == 2)
    other.send("/")
    assert other.answer() == "HTTP/1.1 200 OK"
    lingers.send("/")
    assert lingers.answer() == "HTTP/1.1 200 OK", "its connection was only given back"
    worker.may_end.set()
    assert slow.answer() == "HTTP/1.1 200 OK"
    for client in (lingers, slow, other):
        client.close()
    until(lambda: worker._with_the_pool == 0)


def test_a_client_that_says_nothing_does_not_hold_up_a_stop(patient: None, worker: ProblemWorker) -> None:  # noqa: F811 - a fixture
    silent = Client(worker)
    until(lambda: len(worker.pending_conns) == 1)
    worker.handle_exit(None, None)
    assert silent.is_closed()
    silent.close()
