"""The product's processes, each of which can be killed outright and started again on its port."""

import os
import sys
from pathlib import Path
from typing import Final

import psutil
import requests

from bench.billing import pointed_at
from partner_api.local import engines, ports
from partner_api.local.demo import WORKER_FLAGS
from partner_api.local.processes import Child

# Waits of minutes shrunk to seconds; the retries of a day come from the plan.
HASTE: Final = {
    "DEED_LEASE_SECONDS": "8",
    "DEED_HINT_AGAIN_SECONDS": "20",
    # More than there is to compute: some wait for a sandbox that is slow on purpose.
    "WORKER_CONCURRENCY": "6",
    "SWEEP_SECONDS": "1",
    "MAIN_API_CONNECT_TIMEOUT_SECONDS": "1",
    "MAIN_API_READ_TIMEOUT_SECONDS": "2",
    "MAIN_API_ATTEMPTS": "2",
    "MAIN_API_RETRY_SECONDS": "0.2",
    # In proportion to the retries, a day of which takes 15 s here: after two rests of ten seconds, between
    # two kills of the renderer, an order has waited for as long as it may.
    "CIRCUIT_REST_SECONDS": "2",
    # Workers are killed here far more often than a deed that kills them could explain.
    "DEED_MAX_CRASHES": "50",
    "USAGE_DRAIN_SECONDS": "1",
    "LOG_LEVEL": "INFO",
    "LOG_FORMAT": "json",
}


class Deployment:
    """`database_url` is migrated already. `url` is where the API answers."""

    def __init__(self, folder: Path, *, database_url: str, retries: str) -> None:
        self.folder = folder
        self.running: dict[str, Child] = {}
        self.ended: list[str] = []
        self._starts = 0
        self._redis = {"password": "chaos", "durable": False, "port": ports.free_port()}
        self.url = f"http://127.0.0.1:{ports.free_port()}"
        sandbox = f"http://127.0.0.1:{ports.free_port()}"
        self.env = {
            **os.environ,
            **HASTE,
            "DEED_RETRY_SCHEDULE_SECONDS": retries,
            "ENVIRONMENT": "test",
            "DATABASE_URL": database_url,
            "REDIS_URL": f"redis://:chaos@127.0.0.1:{self._redis['port']}/0",
            "PUBLIC_BASE_URL": self.url,
            "WEB_BIND": self.url.removeprefix("http://"),
            "ALLOWED_HOSTS": "127.0.0.1",
            "VAR_DIR": str(folder),
            "MAIN_API_BASE_URL": sandbox,
            "SANDBOX_BASE_URL": sandbox,
            "MAIN_API_INTERNAL_TOKEN": "chaos",
            "SANDBOX_TOKEN": "chaos",
        }
        self.stripe_url = f"http://127.0.0.1:{ports.free_port()}"
        self.env |= {name: str(value) for name, value in pointed_at(self.stripe_url).items()}
        self.env |= {
            "STRIPE_SYNC_SECONDS": "1",
            "STRIPE_LANE_LEASE_SECONDS": "8",
            "STRIPE_BACKOFF_MAX_SECONDS": "2",
        }
        self.stored = folder / "storage" / "deeds"
        self.receiver_port = ports.free_port()
        self.env |= {
            "WEBHOOKS_ALLOW_HTTP": "true",
            "WEBHOOKS_ALLOW_PRIVATE_ADDRESSES": "127.0.0.1/32",
            "WEBHOOKS_PORTS": str(self.receiver_port),
            # Enough attempts for an endpoint that fails every other time, and workers that die under way.
            "WEBHOOKS_SCHEDULE_SECONDS": ",".join(["0", *["1"] * 30]),
            "WEBHOOKS_LEASE_SECONDS": "8",
            "WEBHOOKS_SWEEP_SECONDS": "1",
        }

    def start(self, name: str) -> None:
        """Starts one of web, worker, beat, sandbox, receiver, stripe, redis. Only Redis is waited for."""
        self._starts += 1
        log = self.folder / "logs" / f"{self._starts:03}-{name}.log"
        if name == "redis":
            self.running[name], _ = engines.start_redis(self.folder / "redis", log=log, **self._redis)  # type: ignore[arg-type]  # a dict of mixed types
            return
        argv = {
            "web": [
                "-m",
                "gunicorn",
                "-c",
                "python:partner_api.gunicorn_conf",
                "partner_api.wsgi:application",
            ],
            "worker": ["-m", "celery", "-A", "partner_api", "worker", *WORKER_FLAGS],
            "beat": ["-m", "celery", "-A", "partner_api", "beat", "--schedule", str(self.folder / "beat")],
            "receiver": ["-m", "bench.receiver", str(self.receiver_port), str(self.folder)],
            "stripe": ["-m", "partner_api.local.stripe_twin", "--port", _port(self.stripe_url)],
            "sandbox": ["manage.py", "runsandbox", "--threads", "64", "--port", self._sandbox_port()],
        }[name]
        self.running[name] = Child(name, [sys.executable, *argv], log=log, env=self.env)

    def kill(self, name: str) -> None:
        """SIGKILL to a process and all that it started, as when its machine is lost."""
        self.running.pop(name).kill()

    def kill_child(self, name: str) -> bool:
        """SIGKILL to one of the processes that `name` started. False when it has none at work yet.

        Celery gives up when a process of its pool dies while it starts, and leaves that to its supervisor.
        """
        child = self.running[name]
        children = psutil.Process(child.pid).children()
        is_at_work = name != "worker" or '"task_id"' in child.log.read_text(errors="replace")
        if not (children and is_at_work):
            return False
        children[-1].kill()
        return True

    def notice_ended(self) -> None:
        """Starts again what ended by itself, which nothing should, and remembers it."""
        for name, child in list(self.running.items()):
            if child.has_ended():
                self.ended.append(str(child.ended()))
                self.start(name)

    def refuse_storage(self) -> None:
        """Puts a file where the folder of PDFs is: every access fails, and nothing is lost."""
        self.stored.mkdir(parents=True, exist_ok=True)
        self.stored.rename(self._aside)
        self.stored.touch()

    def allow_storage(self) -> None:
        self.stored.unlink()
        self._aside.rename(self.stored)

    def answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/healthz", timeout=2).ok
        except requests.RequestException:
            return False

    def stop(self) -> None:
        for child in reversed(self.running.values()):
            child.stop(seconds=5)
        self.running.clear()

    @property
    def _aside(self) -> Path:
        return self.stored.with_name("deeds.aside")

    def _sandbox_port(self) -> str:
        return _port(self.env["SANDBOX_BASE_URL"])


def _port(url: str) -> str:
    return url.rpartition(":")[2]
