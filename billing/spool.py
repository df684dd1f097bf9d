"""The request log's spool: a file for each process, which outlives the process and is written once a request.

A row is one line, appended by one write(2): it is then the kernel's, and no death of a process loses it.
A process holds a lock (flock) on the file it writes to. A file without one was left by a process that
ended, or waits because Postgres was away, and belongs to whoever locks it first.
"""

import fcntl
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

from billing import metrics

log = structlog.get_logger(__name__)

SUFFIX: Final = ".rows"
_COMPLAIN_SECONDS: Final = 30.0


class Spool:
    """The spool of this process. `max_bytes` bounds the whole folder; beyond it rows are dropped."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.is_full = False
        self._lock = threading.Lock()
        self._pid = 0
        self._fd = -1
        self._path: Path | None = None
        self._is_torn = False
        self._complained_at = 0.0

    def append(self, line: bytes) -> bool:
        """Writes one line, which has no newline in it. False, and never an exception, when it can't."""
        if self.is_full:
            self._lost("full", "the spool has reached USAGE_SPOOL_MAX_BYTES")
            return False
        try:
            with self._lock:
                self._write(line + b"\n")
        except OSError as error:
            self._lost("unwritable", str(error))
            return False
        metrics.usage_rows_written.inc()
        return True

    def rotate(self) -> None:
        """Ends the current file, if it holds anything: the next row begins another."""
        with self._lock:
            if self._pid != os.getpid() or self._path is None or os.fstat(self._fd).st_size == 0:
                return
            self._close()

    def backlog(self) -> tuple[int, float]:
        """Bytes not stored yet, and the age in seconds of the oldest file that holds some.

        Decides also whether the spool is full.
        """
        size, oldest = 0, time.time()
        for path in self._files():
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue  # stored by another process meanwhile
            size += stat.st_size
            if stat.st_size:
                oldest = min(oldest, stat.st_mtime)
        self.is_full = size >= self.max_bytes
        return size, max(0.0, time.time() - oldest)

    def left_behind(self) -> Iterator[Path]:
        """All files, oldest first; those that a living process writes to are locked by it, see `taken`."""
        return iter(sorted(self._files(), key=lambda path: path.name))

    def _files(self) -> list[Path]:
        try:
            return [path for path in self.folder.iterdir() if path.suffix == SUFFIX]
        except FileNotFoundError:
            return []

    def _write(self, data: bytes) -> None:
        if self._pid != os.getpid() or self._path is None:
            self._open()
        if self._is_torn:
            data = b"\n" + data
        written = os.write(self._fd, data)
        # A full disk may take a part of a line; the next one must not continue it.
        self._is_torn = written != len(data)
        if self._is_torn:
            message = f"only {written} of {len(data)} bytes were taken"
            raise OSError(message)

    def _open(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{time.time_ns():020}-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        draft = self.folder / f"{name}.opening"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            # Locked before it has its name: unlocked, others would take it for one left behind.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path = draft.rename(draft.with_suffix(SUFFIX))
        except OSError:
            os.close(fd)
            with suppress(OSError):
                draft.unlink()
            raise
        # After a fork, the parent's file stays the parent's: the child only lets go of its copy.
        if self._fd >= 0:
            os.close(self._fd)
        self._pid, self._fd, self._path, self._is_torn = os.getpid(), fd, path, False

    def _close(self) -> None:
        os.close(self._fd)
        self._fd, self._path = -1, None

    def _lost(self, reason: str, why: str) -> None:
        metrics.usage_rows_lost.labels(reason).inc()
        # One line in a while: a full disk must not be filled further by its own complaint.
        if time.monotonic() - self._complained_at > _COMPLAIN_SECONDS:
            self._complained_at = time.monotonic()
            log.error("usage_row_lost", reason=reason, why=why)


@contextmanager
def taken(path: Path) -> Iterator[int | None]:
    """A descriptor of a file that is ours alone meanwhile; None when another has it, or had it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        # Whoever held the lock before us may have stored and removed it.
        yield fd if os.fstat(fd).st_nlink else None
    finally:
        os.close(fd)
