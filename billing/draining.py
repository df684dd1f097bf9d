"""Brings the spool's rows to Postgres: each web process its own, and what ended processes left.

A file is removed only after its rows are committed; storing it again, after a crash between the two,
stores nothing twice (billing.ingest). While Postgres is away the files wait.
"""

import atexit
import os
import threading
from functools import cache
from pathlib import Path
from typing import Final

import structlog
from django.conf import settings
from django.db import connection

from billing import ingest, metrics
from billing.spool import Spool, taken

log = structlog.get_logger(__name__)

# About two thousand rows.
BATCH_BYTES: Final = 600_000
_MAX_PAUSE_SECONDS = 15.0


@cache
def spool() -> Spool:
    """This process' spool."""
    return Spool(Path(settings.USAGE_SPOOL_DIR), max_bytes=settings.USAGE_SPOOL_MAX_BYTES)


def drain() -> int:
    """Stores all rows that no other process is busy with; how many were new.

    Raises django.db.Error while Postgres is away: everything then stays where it is.
    """
    here = spool()
    # First what waits: while Postgres is away, nothing is rotated, and files don't multiply.
    stored = _store_files(here)
    here.rotate()
    stored += _store_files(here)
    _measure(here)
    return stored


class Drainer:
    """A thread that drains again and again; one a process, begun by the process itself after a fork."""

    def __init__(self, *, seconds: float) -> None:
        self.seconds = seconds
        self._pid = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def ensure_running(self) -> None:
        """Cheap enough for each request. Does nothing where USAGE_DRAIN_SECONDS is 0."""
        if self._pid == os.getpid() or not self.seconds:
            return
        with self._lock:
            if self._pid == os.getpid():
                return
            self._stopping = threading.Event()
            try:
                threading.Thread(target=self._run, name="usage-drain", daemon=True).start()
            except RuntimeError as error:
                # The machine has no more threads for us. The rows wait, and the next request tries again.
                metrics.usage_drain_failures.inc()
                log.warning("usage_drain_not_started", why=str(error))
                return
            self._pid = os.getpid()
        atexit.register(self.stop)

    def stop(self) -> None:
        """Drains for the last time; what can't be is left for another process."""
        if self._pid == os.getpid() and not self._stopping.is_set():
            self._stopping.set()
            _drain_or_say()

    def _run(self) -> None:
        pause = self.seconds
        while not self._stopping.wait(pause):
            is_done = _drain_or_say()
            pause = self.seconds if is_done else min(pause * 2, _MAX_PAUSE_SECONDS)


@cache
def drainer() -> Drainer:
    """This process' thread."""
    return Drainer(seconds=settings.USAGE_DRAIN_SECONDS)


def _drain_or_say() -> bool:
    try:
        drain()
    except Exception as error:  # noqa: BLE001 - whatever it is, the rows are there, and the thread must go on
        metrics.usage_drain_failures.inc()
        log.warning("usage_not_drained", reason=type(error).__name__, why=str(error)[:200])
        _measure(spool())
        return False
    else:
        return True
    finally:
        # A thread's connection goes back to the pool; one that broke is not used again.
        connection.close()


def _store_files(here: Spool) -> int:
    stored = 0
    for path in here.left_behind():
        try:
            stored += _store_file(path)
        except OSError as error:
            # A file that can't be read or removed must not hold up those after it.
            metrics.usage_drain_failures.inc()
            log.warning("usage_file_not_stored", file=path.name, why=str(error))
    return stored


def _store_file(path: Path) -> int:
    stored = 0
    with taken(path) as fd:
        if fd is None:
            return 0
        # The descriptor has one owner, who closes it: a copy kept alive by an exception would keep the lock.
        file = os.fdopen(fd, "rb", closefd=False)
        while lines := file.readlines(BATCH_BYTES):
            stored += ingest.store([line.rstrip(b"\n") for line in lines])
        path.unlink()
    return stored


def _measure(here: Spool) -> None:
    size, age = here.backlog()
    metrics.usage_spool_bytes.set(size)
    metrics.usage_spool_age.set(age)
