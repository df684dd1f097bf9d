"""Servers of its own, and how one thing is measured against another.

What is compared runs in turns, again and again, so that whatever else the machine does meets both; the
ratio is the median of the turns' ratios.
"""

import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

import psycopg
import requests

from bench.load import Measured, Task
from partner_api.local import engines, ports
from partner_api.local.processes import Child, Family

OK: Final = 200
SUCCESSES: Final = frozenset({"200", "201", "202"})
BLANK: Final = "blank"
# How long before its time a run begins to end what it has started.
_ENDING_SECONDS: Final = 8


@dataclass(frozen=True)
class Figure:
    """One line of the report. `target` says what must be reached, `ok` whether it is."""

    name: str
    value: float
    target: str
    ok: bool
    detail: str


def at_least(name: str, value: float, bound: float, detail: str) -> Figure:
    return Figure(name, round(value, 3), f">= {bound}", value >= bound, detail)


def at_most(name: str, value: float, bound: float, detail: str) -> Figure:
    return Figure(name, round(value, 3), f"<= {bound}", value <= bound, detail)


class Bench:
    """Postgres, Redis, and what is started on them; all end with `stop`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.family = Family()
        password = secrets.token_hex(8)
        env = {
            "ENVIRONMENT": "test",
            "DJANGO_SETTINGS_MODULE": "bench.settings",
            "SECRET_KEY": secrets.token_hex(32),
            "FIELD_ENCRYPTION_KEYS": engines.fernet_key(),
            "ALLOWED_HOSTS": "127.0.0.1,testserver",
            "VAR_DIR": str(folder / "var"),
            "LOG_LEVEL": "INFO",
            "SANDBOX_TOKEN": "token",
            "MAIN_API_INTERNAL_TOKEN": "token",
            "PYTHONUNBUFFERED": "1",
        }
        # Durable, but without a log that nobody reads: ten million rows are loaded in half the time.
        start_postgres = partial(
            engines.start_postgres,
            more={"wal_level": "minimal", "max_wal_senders": "0", "max_wal_size": "8GB"},
        )
        for name, start in (("DATABASE_URL", start_postgres), ("REDIS_URL", engines.start_redis)):
            data = folder / name.lower()
            child, env[name] = start(data, password=password, log=data.with_suffix(".log"), durable=True)
            self.family.add(child)
        env["PUBLIC_BASE_URL"] = "http://127.0.0.1"
        self._engines = len(self.family.children)
        self.env = env
        # What is measured in this process says only what went wrong; servers write their logs as ever.
        os.environ.update(env | {"LOG_LEVEL": "ERROR"})

    def web(self, *, workers: int | None = 1, env: Mapping[str, str] | None = None) -> str:
        """Starts gunicorn, with as many processes as are shipped where None is given; where it answers."""
        address = f"127.0.0.1:{ports.free_port()}"
        ours = {"WEB_BIND": address, **(env or {})}
        if workers is not None:
            ours["WEB_WORKERS"] = str(workers)
        arguments = [
            "-m",
            "gunicorn",
            "-c",
            "python:partner_api.gunicorn_conf",
            "partner_api.wsgi:application",
        ]
        web = self.start(f"web-{address.rpartition(':')[2]}", arguments, **ours)
        web.wait_until(lambda: _answers(f"http://{address}/healthz"), seconds=60)
        return f"http://{address}"

    def sandbox(self, render_seconds: float) -> str:
        """Starts the Main API's stand-in, and returns where it answers."""
        port = ports.free_port()
        url = f"http://127.0.0.1:{port}"
        arguments = ["--port", str(port), "--render-seconds", str(render_seconds)]
        sandbox = self.start(f"sandbox-{port}", ["manage.py", "runsandbox", *arguments], LOG_LEVEL="WARNING")
        sandbox.wait_until(lambda: _answers(f"{url}/healthz"), seconds=30)
        return url

    def start(self, name: str, arguments: list[str], **env: str) -> Child:
        log = self.folder / f"{name}.log"
        child = Child(name, [sys.executable, *arguments], log=log, env={**os.environ, **self.env, **env})
        return self.family.add(child)

    def database(self, name: str) -> str:
        """The address of a new database, migrated and empty."""
        server = self.env["DATABASE_URL"].rpartition("/")[0]
        _sql(server, f"CREATE DATABASE {name} TEMPLATE {BLANK}")
        return f"{server}/{name}"

    def prepare(self) -> None:
        """Migrates, and keeps a copy that stays empty."""
        from django.core.management import call_command
        from django.db import connection

        call_command("migrate", interactive=False, verbosity=0)
        # A database that someone is connected to can't be copied.
        connection.close()
        connection.close_pool()  # type: ignore[attr-defined]  # the Postgres backend has one
        server, _, name = self.env["DATABASE_URL"].rpartition("/")
        _sql(server, f"CREATE DATABASE {BLANK} TEMPLATE {name}")

    def end_suite(self) -> None:
        """Ends what a suite has started, so that the next one has the machine for itself."""
        for child in reversed(self.family.children[self._engines :]):
            child.stop(seconds=10)
        del self.family.children[self._engines :]

    def stop(self) -> None:
        self.family.stop()


def measure(
    url: str,
    lines: list[str],
    *,
    seconds: float,
    connections: int = 8,
    rate: float = 0.0,
    warm_seconds: float = 0.0,
    wanted: frozenset[str] = SUCCESSES,
) -> Measured:
    """Load on a server from a process of its own. Raises RuntimeError when an answer is not as wanted."""
    host, _, port = url.removeprefix("http://").partition(":")
    task = Task(host, int(port), lines, connections, seconds, rate, warm_seconds)
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"],
        input=json.dumps(asdict(task)),
        capture_output=True,
        text=True,
        check=True,
    )
    measured = Measured(**json.loads(done.stdout))
    if not set(measured.statuses) <= wanted:
        message = f"{lines[0].splitlines()[0]} was answered {measured.statuses}"
        raise RuntimeError(message)
    return measured


def in_turns(sides: dict[str, Callable[[], float]], *, rounds: int) -> dict[str, list[float]]:
    """Each side's values, one a round; every other round runs in the opposite order."""
    values: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        names = list(sides) if number % 2 == 0 else list(sides)[::-1]
        for name in names:
            values[name].append(sides[name]())
    return values


def ratio(values: dict[str, list[float]], name: str, other: str) -> float:
    return statistics.median(one / two for one, two in zip(values[name], values[other], strict=True))


class OutOfTimeError(Exception):
    """The whole run has taken as long as it may."""


def main(suites: Mapping[str, Callable[[Bench], list[Figure]]], wanted: list[str], report: Path) -> int:
    """Runs the suites and writes the report.

    The exit code is 1 when a target is missed, or when not all could be measured in the time there is:
    BENCH_SECONDS, 240 unless given.
    """
    if unknown := set(wanted) - set(suites):
        print(f"No such suite: {', '.join(sorted(unknown))}. There are {', '.join(suites)}.")
        return 2
    chosen = {name: suite for name, suite in suites.items() if not wanted or name in wanted}
    started = time.monotonic()
    figures: list[Figure] = []
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.setitimer(signal.ITIMER_REAL, float(os.environ.get("BENCH_SECONDS") or 240) - _ENDING_SECONDS)
    try:
        for name, found in _run(chosen):
            figures += _told(found, started)
            del chosen[name]
    except OutOfTimeError:
        print(f"stopped after {time.monotonic() - started:.0f} s, without {', '.join(chosen)}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")
    print(f"{time.monotonic() - started:.0f} s in all; written to {report}")
    return int(bool(chosen) or not all(figure.ok for figure in figures))


def _run(suites: Mapping[str, Callable[[Bench], list[Figure]]]) -> Iterator[tuple[str, list[Figure]]]:
    with tempfile.TemporaryDirectory(prefix="partner-api-bench-") as folder:
        bench = Bench(Path(folder))
        try:
            import django

            django.setup()
            bench.prepare()
            for name, suite in list(suites.items()):
                yield name, suite(bench)
                bench.end_suite()
        finally:
            bench.stop()


def _out_of_time(*_: object) -> NoReturn:
    raise OutOfTimeError


def _told(figures: list[Figure], started: float) -> list[Figure]:
    for figure in figures:
        mark = "ok    " if figure.ok else "MISSED"
        at = f"[{time.monotonic() - started:5.1f} s]"
        print(f"{at} {mark} {figure.name} = {figure.value} ({figure.target}): {figure.detail}", flush=True)
    return figures


def _sql(server: str, statement: str) -> None:
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(statement)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).status_code == OK
    except requests.RequestException:
        return False


def facts(**values: Any) -> str:
    """Figures behind a figure, in one line."""
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in values.items())
