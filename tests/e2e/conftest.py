"""The product as it is deployed: gunicorn, a Celery worker and the sandbox, on the test's database."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from django.db import connection

from keys.models import Partner
from partner_api.local.demo import WORKER_FLAGS
from partner_api.local.ports import free_port
from partner_api.local.processes import Child
from tests.log_wall import leaks


class Deployment:
    """Processes that share this test's database and Redis. `url` is where the API answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: list[Child] = []
        self.url = f"http://127.0.0.1:{free_port()}"
        sandbox = f"http://127.0.0.1:{free_port()}"
        server = os.environ["DATABASE_URL"].rpartition("/")[0]
        self.env = {
            **os.environ,
            "ENVIRONMENT": "test",
            "DATABASE_URL": f"{server}/{connection.settings_dict['NAME']}",
            "PUBLIC_BASE_URL": self.url,
            "WEB_BIND": self.url.removeprefix("http://"),
            # Those that need several say so: each takes a second of the machine to start.
            "WEB_WORKERS": "1",
            "VAR_DIR": str(folder),
            "MAIN_API_BASE_URL": sandbox,
            "SANDBOX_BASE_URL": sandbox,
            "SANDBOX_TOKEN": "token",
            "MAIN_API_INTERNAL_TOKEN": "token",
            "LOG_LEVEL": "INFO",
        }

    def start(self, name: str, *arguments: str) -> Child:
        # A second one of a name has a log of its own: both write while one replaces the other.
        others = sum(child.name == name for child in self.children)
        log = self.folder / (f"{name}-{others + 1}.log" if others else f"{name}.log")
        child = Child(name, [sys.executable, *arguments], log=log, env=self.env)
        self.children.append(child)
        return child

    def start_web(self, **env: str) -> None:
        self.env |= env
        web = self.start(
            "web", "-m", "gunicorn", "-c", "python:partner_api.gunicorn_conf", "partner_api.wsgi:application"
        )
        web.wait_until(self._answers, seconds=90)

    def start_sandbox(self) -> None:
        port = self.env["SANDBOX_BASE_URL"].rpartition(":")[2]
        self.start("sandbox", "manage.py", "runsandbox", "--port", port)

    def start_worker(self) -> None:
        worker = self.start("worker", "-m", "celery", "-A", "partner_api", "worker", *WORKER_FLAGS)
        worker.wait_until(lambda: " ready." in worker.log.read_text(), seconds=90)

    def start_beat(self) -> None:
        schedule = str(self.folder / "schedule")
        self.start("beat", "-m", "celery", "-A", "partner_api", "-q", "beat", "--schedule", schedule)

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/healthz", timeout=2).ok
        except requests.RequestException:
            return False


@pytest.fixture
def deployment(transactional_db: None, acme: Partner, tmp_path: Path) -> Iterator[Deployment]:
    with deployed(tmp_path) as running:
        yield running


@contextmanager
def deployed(folder: Path) -> Iterator[Deployment]:
    """A deployment that starts nothing by itself; what was started is gone afterwards, and kept no secret."""
    running = Deployment(folder)
    try:
        yield running
    finally:
        # Outright: how they stop is what other tests look at, and waiting for it takes long.
        for child in reversed(running.children):
            child.kill()
    for log in folder.glob("*.log"):
        assert leaks(log.read_text(errors="replace")) == [], f"{log.name} shows what no log may"
