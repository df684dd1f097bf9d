"""Whether a worker's memory stays flat: `python -m bench.memory [DEEDS]`, 5,000 unless given.

A Celery worker with one process, which is not replaced meanwhile, makes deeds with a sandbox that answers at
once. It exits with 1 when that process holds more at the end than after the first fifth. The worker's parent,
which only hands out tasks, is told beside it: Celery keeps the last thousand ids there, and a timer for each
task until its time limit has passed.
"""

import os
import sys
import time
from pathlib import Path
from typing import Final

import psutil

from bench import harness
from bench.harness import Bench, Figure, at_most, facts

DEEDS: Final = 5000
# A leak of a kilobyte a deed would be 4 MB.
MOST_MB: Final = 3
_WARM_DEEDS: Final = 100
_STEPS: Final = 10
_POLL_SECONDS: Final = 0.2
_PATIENCE_SECONDS: Final = 1200


def run(bench: Bench, *, deeds: int = DEEDS) -> list[Figure]:
    """`worker_memory_growth`, in MB."""
    from bench.orders import partner_with_key, queue

    worker = _worker(bench)
    # What is loaded at the first deed, and when there is none left, is no growth.
    first, _ = partner_with_key("Bench warm")
    queue(first, _WARM_DEEDS)
    while first.deeds.exclude(status="completed").exists():
        time.sleep(_POLL_SECONDS)
    partner, _ = partner_with_key("Bench memory")
    queue(partner, deeds)
    started, held, parent = time.monotonic(), dict[int, float](), list[float]()
    while len(held) < _STEPS:
        done = partner.deeds.filter(status="completed").count()
        reached = done * _STEPS // deeds
        if reached > len(held):
            (process,) = worker.children()
            # Steps that were passed between two looks share a value.
            held |= dict.fromkeys(range(len(held) + 1, reached + 1), _megabytes(process))
            parent.append(_megabytes(worker))
        if time.monotonic() - started > _PATIENCE_SECONDS:
            message = f"only {done} of {deeds} deeds were made in {_PATIENCE_SECONDS} s"
            raise RuntimeError(message)
        time.sleep(_POLL_SECONDS)
    seconds = time.monotonic() - started
    by_deeds = {f"{step * deeds // _STEPS} deeds": megabytes for step, megabytes in held.items()}
    growth = held[_STEPS] - held[_STEPS // 5]
    speed = facts(deeds_per_second=deeds / seconds, parent_first=parent[0], parent_last=parent[-1])
    detail = f"{speed}; MB after {by_deeds}"
    return [at_most("worker_memory_growth", growth, MOST_MB, detail)]


def _megabytes(process: psutil.Process) -> float:
    return round(float(process.memory_info().rss) / 2**20, 1)


def _worker(bench: Bench) -> psutil.Process:
    arguments = ["-m", "celery", "-A", "partner_api", "worker", "-c", "1", "-Q", "deeds,deeds-bulk"]
    worker = bench.start(
        "worker",
        [*arguments, "--without-gossip", "--without-mingle"],
        MAIN_API_BASE_URL=bench.sandbox(0),
        WORKER_MAX_TASKS_PER_CHILD=str(2**31),
    )
    return psutil.Process(worker.pid)


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else DEEDS
    os.environ.setdefault("BENCH_SECONDS", str(_PATIENCE_SECONDS + 60))
    suite = {"memory": lambda bench: run(bench, deeds=number)}
    sys.exit(harness.main(suite, [], Path("var/bench/memory.json")))
