"""Reads settings from the environment, and says in one line what is wrong with one.

A setting that is missing, of the wrong type or misspelt is an ImproperlyConfigured that names it and
shows no value (it may be a secret); at the top of a process it ends it with that line and no traceback.
"""

import difflib
import fcntl
import ipaddress
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

import environ
from django.core.exceptions import ImproperlyConfigured

_BOOLEANS: Final = frozenset({"true", "on", "yes", "y", "ok", "1", "false", "off", "no", "n", "0"})
# What else ENVIRONMENT may be is a kind of production.
NOT_PRODUCTION: Final = frozenset({"demo", "development", "test"})
_KINDS: Final = {int: "a whole number", float: "a number", bool: "true or false"}
# Read elsewhere than in settings.py: by gunicorn, prometheus_client, the demo.
_READ_ELSEWHERE: Final = frozenset(
    {
        "WEB_BIND",
        "WEB_WORKERS",
        "WEB_THREADS",
        "WEB_PINNED",
        "PROMETHEUS_MULTIPROC_DIR",
        "PORT",
        "ONCE",
        "STRIPE",
        "STORAGE",
    }
)
_HOURS: Final = 24
_Number = TypeVar("_Number", int, float)
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_CLOSE: Final = 0.85
# Shorter ones (PORT, POD_IP) look like those of others; a slip adds or leaves out so many characters.
_LONG: Final = 8
_SLIP: Final = 2


class Env(environ.FileAwareEnv):  # type: ignore[misc]  # it has no types
    """django-environ's, strict about types; `known` is every name that was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.known: set[str] = set()

    def get_value(self, var: str, cast: Any = None, default: Any = environ.Env.NOTSET, **rest: Any) -> Any:
        self.known.add(var)
        # Its own readers of booleans and numbers take anything, `ture` and `12abc` too.
        if cast in _KINDS and var in self.ENVIRON and not _fits(str(self.ENVIRON[var]), cast):
            raise ImproperlyConfigured(f"{var} must be {_KINDS[cast]}")
        try:
            return super().get_value(var, cast, default, **rest)
        except ImproperlyConfigured as error:
            raise ImproperlyConfigured(f"{var} is not set{_perhaps(var, os.environ)}") from error
        except ValueError as error:
            raise ImproperlyConfigured(f"{var} can't be read; see docs/configuration.md") from error

    def ints(self, var: str, default: Sequence[int]) -> list[int]:
        """Whole numbers, by comma."""
        return self._each(var, int, default, "whole numbers, by comma")

    def floats(self, var: str, default: Sequence[float]) -> list[float]:
        """Numbers, by comma."""
        return self._each(var, float, default, "numbers, by comma")

    def hour(self, var: str, default: int) -> int:
        """An hour of the day, 0 to 23."""
        value: int = self.int(var, default=default)
        if not 0 <= value < _HOURS:
            raise ImproperlyConfigured(f"{var} must be an hour, 0 to 23")
        return value

    def choice(self, var: str, among: Sequence[str], default: str) -> str:
        """One of `among`, written as it is there."""
        value: str = self.str(var, default=default)
        if value not in among:
            raise ImproperlyConfigured(f"{var} must be {', '.join(among[:-1])} or {among[-1]}")
        return value

    def _each(self, var: str, cast: type[_Number], default: Sequence[_Number], what: str) -> list[_Number]:
        try:
            return [cast(one) for one in self.list(var, default=[str(one) for one in default])]
        except ValueError as error:
            raise ImproperlyConfigured(f"{var} must be {what}") from error

    def networks(self, var: str, default: Any = environ.Env.NOTSET) -> list[Network]:
        """Networks in CIDR notation, by comma."""
        try:
            return [ipaddress.ip_network(cidr.strip()) for cidr in self.list(var, default=default)]
        except ValueError as error:
            raise ImproperlyConfigured(f"{var} must be networks such as 10.0.0.0/8, by comma") from error

    def refuse_misspelt(self, file: Path) -> None:
        """Raises ImproperlyConfigured for a name in the file that nothing reads, with what was meant."""
        known = self.known | _READ_ELSEWHERE
        for name in _names_in(file):
            if name not in known and name.removesuffix("_FILE") not in known:
                message = f"{name} in {file.name} is no setting{_perhaps(name, known)}"
                raise ImproperlyConfigured(message)

    def misspelt(self, names: Iterable[str]) -> list[tuple[str, str]]:
        """Of a process' environment: names that nothing reads but look like a setting's, each with that one.

        Most of an environment is not for us, so short names and those of another length are left alone.
        """
        known = self.known | _READ_ELSEWHERE
        found = []
        for name in sorted(names):
            stem = name.removesuffix("_FILE")
            if not {name, stem}.isdisjoint(known):
                continue
            alike = [one for one in known if len(one) >= _LONG and abs(len(one) - len(stem)) <= _SLIP]
            close = difflib.get_close_matches(stem, alike, 1, _CLOSE)
            if close:
                found.append((name, close[0] + name.removeprefix(stem)))
        return found


def read_files(folder: Path) -> Path | None:
    """Fills what the environment leaves open from the folder's `.env`; the file, where it was read.

    While a local stack runs on VAR_DIR, what it left for its tools is read in its place: they are to reach
    its servers, with its keys.
    """
    file = folder / ".env"
    var_dir = os.environ.get("VAR_DIR") or values_in(file).get("VAR_DIR") or folder / "var"
    run = Path(var_dir).absolute() / "run"
    if _is_held(run / "lock"):
        Env.read_env(run / "local.env")
        return None
    Env.read_env(file)
    return file


def values_in(file: Path) -> dict[str, str]:
    """What a file like `.env` says, for those who decide what of it is used. None where there is no file."""

    class Apart(environ.Env):  # type: ignore[misc]  # it has no types
        ENVIRON: dict[str, str] = {}

    Apart.read_env(file)
    return Apart.ENVIRON


@contextmanager
def ends_in_one_line() -> Iterator[None]:
    """An ImproperlyConfigured ends the process with its message alone, also below those that catch errors."""
    try:
        yield
    except ImproperlyConfigured as error:
        sys.exit(f"not configured: {error}")


def say_in_one_line() -> None:
    """From now on, an ImproperlyConfigured that ends the process is its message and nothing else."""
    usual = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, ImproperlyConfigured):
            sys.stderr.write(f"not configured: {error}\n")
        else:
            usual(kind, error, trace)

    sys.excepthook = hook


def stop_if_misconfigured() -> None:
    """Reads the settings; ends the process with one line where they can't be."""
    from django.conf import settings  # noqa: PLC0415 - reading them is what is tried here

    with ends_in_one_line():
        settings.ENVIRONMENT  # noqa: B018 - loads the settings


def _is_held(lock: Path) -> bool:
    """Whether who took the lock of a folder still runs."""
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _fits(text: str, cast: Any) -> bool:
    if cast is bool:
        return text.strip().lower() in _BOOLEANS
    try:
        cast(text)
    except ValueError:
        return False
    return True


def _perhaps(name: str, others: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, [other for other in others if other != name], 1, _CLOSE)
    return f"; {close[0]} is one: did you mean that?" if close else ""


def _names_in(file: Path) -> list[str]:
    if not file.exists():
        return []
    return re.findall(r"^(?:export )?([A-Za-z_0-9]+)=", file.read_text(), re.MULTILINE)
