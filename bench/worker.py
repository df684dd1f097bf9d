"""What a deed costs a worker beyond the Main API's own time, and whether its memory stays flat.

Run it as `python -m partner_api.local exec -- env … python -m bench.worker [--deeds N] [--render-seconds S]`:
it makes real deeds on a real Postgres, Redis and sandbox. Figures of a busy machine are ratios only.
"""

import argparse
import contextlib
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any, Final

import django
import psutil
import requests

from bench.harness import Bench, Figure, at_most, facts

DEEDS: Final = 30
RENDER_SECONDS: Final = 0.45


def run(bench: Bench) -> list[Figure]:
    """`worker_overhead`, with a Main API that takes as long as the real one."""
    found = measure(deeds=DEEDS, render_seconds=RENDER_SECONDS)
    detail = facts(call_ms=found["call_ms"], own_ms=found["own_ms"], deeds=found["completed"])
    return [at_most("worker_overhead", found["worker_overhead"], 1.05, detail)]


def measure(*, deeds: int, render_seconds: float, memory_every: int = 500) -> dict[str, Any]:
    """`worker_overhead` (worker time ÷ time in the call), milliseconds a deed, and memory in MB."""
    from deeds import fulfilment

    in_call = 0.0
    render = fulfilment.render  # type: ignore[attr-defined]  # what is measured is put around it

    def timed(*args: Any, **kwargs: Any) -> Any:
        nonlocal in_call
        started = time.perf_counter()
        try:
            return render(*args, **kwargs)
        finally:
            in_call += time.perf_counter() - started

    process = psutil.Process()
    memory = []
    with _sandbox(render_seconds), _partner() as partner:
        _queue(partner, deeds)
        fulfilment.serve(is_bulk=True)  # opens the connections
        fulfilment.render = timed  # type: ignore[attr-defined]
        started = time.perf_counter()
        for number in range(1, deeds):
            if not fulfilment.serve(is_bulk=True):
                message = f"only {number} of {deeds} deeds were served"
                raise RuntimeError(message)
            if number % memory_every == 0:
                memory.append(round(process.memory_info().rss / 2**20, 1))
        total = time.perf_counter() - started
        fulfilment.render = render  # type: ignore[attr-defined]
        completed = partner.deeds.filter(status="completed").count()
    return {
        "deeds": deeds,
        "completed": completed,
        "worker_overhead": round(total / in_call, 4),
        "call_ms": round(in_call / (deeds - 1) * 1000, 1),
        "own_ms": round((total - in_call) / (deeds - 1) * 1000, 1),
        "memory_mb": memory,
    }


@contextlib.contextmanager
def _partner() -> Iterator[Any]:
    from keys.models import Partner

    yield Partner.objects.create(name=f"Bench {time.time_ns()}")


def _queue(partner: Any, number: int) -> None:
    """Orders through the front door, in batches."""
    from deeds import ordering
    from deeds.catalog import DEED_TYPES
    from keys.models import ApiKey

    key, _ = ApiKey.issue(partner, name="Bench", environment="live", scopes=["deed:*"])
    origin = ordering.Origin(partner, key, "batch", "bench")
    orders = []
    for index in range(number):
        order = copy.deepcopy(list(DEED_TYPES.values())[index % len(DEED_TYPES)].example)
        orders.append(order | {"order_id": f"BENCH-{index}"})
    for start in range(0, number, 500):
        ordering.place_all(origin, orders[start : start + 500])


@contextlib.contextmanager
def _sandbox(render_seconds: float) -> Iterator[None]:
    from django.conf import settings

    from partner_api.local.ports import free_port

    port = free_port()
    settings.MAIN_API_BASE_URL = f"http://127.0.0.1:{port}"
    settings.MAIN_API_INTERNAL_TOKEN = "bench"
    arguments = ["manage.py", "runsandbox", "--port", str(port), "--render-seconds", str(render_seconds)]
    env = {**os.environ, "SANDBOX_TOKEN": "bench", "LOG_LEVEL": "WARNING"}
    with subprocess.Popen(
        [sys.executable, *arguments], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            _wait(settings.MAIN_API_BASE_URL)
            yield
        finally:
            process.terminate()


def _wait(url: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.RequestException):
            requests.get(f"{url}/healthz", timeout=1)
            return
        time.sleep(0.1)
    message = "the sandbox did not start"
    raise RuntimeError(message)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deeds", type=int, default=60)
    parser.add_argument("--render-seconds", type=float, default=0.45)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="partner-api-bench-") as folder:
        os.environ["DEED_STORAGE_DIR"] = folder
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "partner_api.settings")
        os.environ.setdefault("LOG_LEVEL", "WARNING")
        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        print(json.dumps(measure(deeds=given.deeds, render_seconds=given.render_seconds)))


if __name__ == "__main__":
    main()
