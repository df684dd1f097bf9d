"""Looks a name up within a time limit, which the system's resolver has none of and can't be stopped by.

So it is asked in a thread, and whoever waits goes on when the time is up. The thread is left behind until
the resolver gives up; a name that hangs can leave only a few, so that it takes no place from the others.
"""

import queue
import socket
import threading
import time
from collections import Counter
from typing import Final

# Further ones wait for these: where the resolver answers, for milliseconds.
MAX_OF_ONE_NAME: Final = 4
MAX_UNDER_WAY: Final = 256

_Found = list[str] | OSError | UnicodeError

_changed = threading.Condition()
_under_way: Counter[str] = Counter()


def look_up(host: str, port: int, *, seconds: float) -> list[str]:
    """Every address of the host, each once.

    Raises TimeoutError when the resolver has not answered in time; another OSError or UnicodeError when
    the name can't be resolved.
    """
    ends_at = time.monotonic() + seconds
    answer: queue.SimpleQueue[_Found] = queue.SimpleQueue()
    _take_place(host, seconds)
    try:
        # A daemon: a process that ends does not wait for a resolver.
        threading.Thread(target=_ask, args=(host, port, answer), name="look-up", daemon=True).start()
    except RuntimeError as error:  # no more threads; it passes, as a resolver that hangs may
        _give_place_back(host)
        raise TimeoutError from error
    try:
        found = answer.get(timeout=max(0.0, ends_at - time.monotonic()))
    except queue.Empty as error:
        raise TimeoutError from error
    if isinstance(found, Exception):
        raise found
    return found


def _ask(host: str, port: int, answer: "queue.SimpleQueue[_Found]") -> None:
    found: _Found
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # A scope (fe80::1%eth0) belongs to link-local addresses only, and those are refused.
        found = list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in entries))
    except (OSError, UnicodeError) as error:
        found = error
    finally:
        _give_place_back(host)
    answer.put(found)


def _take_place(host: str, seconds: float) -> None:
    """Raises TimeoutError when none is free in time."""
    with _changed:
        if not _changed.wait_for(lambda: _has_place(host), seconds):
            raise TimeoutError
        _under_way[host] += 1


def _has_place(host: str) -> bool:
    return _under_way[host] < MAX_OF_ONE_NAME and _under_way.total() < MAX_UNDER_WAY


def _give_place_back(host: str) -> None:
    with _changed:
        _under_way[host] -= 1
        # What is kept is what is under way, and not every name that was ever looked up.
        if not _under_way[host]:
            del _under_way[host]
        _changed.notify_all()
