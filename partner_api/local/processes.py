"""Child processes that end with us, however we end, and say what was wrong when they end by themselves."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_LAST_LINES: Final = 20
POLL_SECONDS: Final = 0.05
_libc = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """Something did not start, or ended by itself. The message is for the person at the terminal."""


class Stopped(BaseException):
    """A signal asked us to end. Not an Exception, so that nothing between takes it for an error."""


class Child:
    """One process in a session of its own, its output in a file."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        stdin: bytes | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self.stop_signal = stop_signal
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self.process = subprocess.Popen(  # noqa: S603 - our own commands
                argv,
                env=dict(env) if env is not None else None,
                stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent(stop_signal),  # noqa: PLW1509 - we fork without threads
            )
        if stdin is not None and self.process.stdin is not None:
            self.process.stdin.write(stdin)
            self.process.stdin.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def failure(self, what: str) -> Failed:
        """An error that names the process and shows the end of its log."""
        lines = self.log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        tail = "\n".join(f"    {line}" for line in lines)
        return Failed(f"{self.name} {what}. The end of {self.log}:\n{tail}")

    def ended(self) -> Failed:
        code = self.process.returncode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return self.failure(how)

    def wait_until(self, is_ready: Callable[[], bool], *, seconds: float) -> None:
        """Raises Failed when the process ends first, or the time passes."""
        deadline = time.monotonic() + seconds
        while not is_ready():
            if self.has_ended():
                raise self.ended()
            if time.monotonic() > deadline:
                raise self.failure(f"was not ready after {seconds:.0f} s")
            time.sleep(POLL_SECONDS)

    def stop(self, *, seconds: float) -> None:
        """Asks, waits so long at most, then ends the process and all that it started."""
        if not self.has_ended():
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def kill(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


class Family:
    """Children that live and end together. Signals that ask to end raise Stopped."""

    def __init__(self) -> None:
        self.children: list[Child] = []
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _raise_stopped)

    def add(self, child: Child) -> Child:
        self.children.append(child)
        return child

    def check(self) -> None:
        """Raises Failed when one has ended by itself."""
        for child in self.children:
            if child.has_ended():
                raise child.ended()

    def stop(self) -> None:
        """Last started, first stopped. A second signal ends all at once."""
        try:
            while self.children:
                self.children[-1].stop(seconds=8)
                self.children.pop()
        except Stopped:
            for child in reversed(self.children):
                child.kill()


def _raise_stopped(number: int, frame: FrameType | None) -> None:
    raise Stopped(signal.Signals(number).name)


def _end_with_parent(number: signal.Signals) -> Callable[[], None]:
    """For a supervisor that is killed outright: the kernel then signals each child."""

    def in_child() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(number))

    return in_child
