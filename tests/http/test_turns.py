"""Few requests are worked on at a time, and none waits for one that itself waits."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from partner_api.http import turns
from partner_api.http.turns import Turns


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, work does not look like waiting."""
    monkeypatch.setattr(turns, "_WORKS_SECONDS", 60.0)


def held(some: Turns, until: threading.Event) -> Callable[[], None]:
    """Holds a turn in a thread of its own; called, it waits for that thread's end."""
    has_it = threading.Event()

    def hold() -> None:
        with some.turn():
            has_it.set()
            assert until.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert has_it.wait(20)
    return thread.join


def free(some: Turns) -> int:
    return some._free


def until(is_true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < ends
        time.sleep(0.001)


def test_never_more_at_a_time_than_there_are_turns(patient: None) -> None:
    some, now, most, lock = Turns(2), 0, 0, threading.Lock()

    def work(_: Any) -> None:
        nonlocal now, most
        with some.turn():
            with lock:
                now += 1
                most = max(most, now)
            # Python's lock is let go of here, as a request does.
            threading.Event().wait(0.0005)
            with lock:
                now -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(200)))
    assert most == 2
    assert free(some) == 2


def test_they_are_given_in_the_order_in_which_they_are_asked_for(patient: None) -> None:
    some, got = Turns(1), list[int]()

    def wants(number: int) -> None:
        with some.turn():
            got.append(number)
        # Whoever has just had a turn is awake, and the others are not yet.
        with some.turn():
            got.append(number + 10)

    with ThreadPoolExecutor(4) as pool:
        with some.turn():
            done = []
            for number in range(4):
                done.append(pool.submit(wants, number))
                until(lambda: len(some._waiting) == len(done))
        for each in done:
            each.result(20)
    assert got[:4] == [0, 1, 2, 3]
    assert sorted(got[4:]) == [10, 11, 12, 13]


def test_one_that_waits_is_overtaken_and_no_turn_is_lost_or_made() -> None:
    some, may_end = Turns(2), threading.Event()
    ends = [held(some, may_end) for _ in range(2)]
    assert free(some) == 0
    for _ in range(3):
        with some.turn():
            pass
    assert free(some) == 1, "the turn that was taken over; the other is still held"
    with some.turn(), ThreadPoolExecutor(1) as pool:

        def takes_the_other() -> None:
            with some.turn():
                pass

        pool.submit(takes_the_other).result(20)
    may_end.set()
    for end in ends:
        end()
    assert free(some) == 2
    assert some._held == {}


def test_one_that_is_given_back_early_is_free_at_once(patient: None) -> None:
    some = Turns(1)
    with some.turn():
        some.give_back()
        assert free(some) == 1
        may_end = threading.Event()
        end = held(some, may_end)
    assert free(some) == 0, "it is another's now"
    may_end.set()
    end()
    assert free(some) == 1


def test_an_error_gives_it_back(patient: None) -> None:
    some = Turns(1)
    with pytest.raises(ZeroDivisionError), some.turn():
        _ = 1 / 0
    assert free(some) == 1
