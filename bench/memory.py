"""Whether a worker's memory stays flat: `python -m bench.memory [DEEDS]`, 5,000 unless given.

A Celery worker with one process, which is not replaced meanwhile, makes deeds with a sandbox that answers at
once. It exits with 1 when the worker holds more at the end than after the first fifth.
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
# A leak of a kilobyte a deed would be 4 MB; what the allocator keeps moves by less than a half of that.
MOST_MB: Final = 2
_STEPS: Final = 10
_POLL_SECONDS: Final = 0.2
_PATIENCE_SECONDS: Final = 1200


def run(bench: Bench, *, deeds: int = DEEDS) -> list[Figure]:
    """`worker_memory_growth`, in MB."""
    from bench.orders import partner_with_key, queue

    partner, _ = partner_with_key("Bench memory")
    queue(partner, deeds)
    worker = _worker(bench)
    started, held = time.monotonic(), dict[int, float]()
    while len(held) < _STEPS:
        done = partner.deeds.filter(status="completed").count()
        reached = done * _STEPS // deeds
        if reached > len(held):
            # The worker and its one process together: steps that were passed between two looks share a value.
            family = [worker, *worker.children()]
            megabytes = round(sum(process.memory_info().rss for process in family) / 2**20, 1)
            held |= dict.fromkeys(range(len(held) + 1, reached + 1), megabytes)
        if time.monotonic() - started > _PATIENCE_SECONDS:
            message = f"only {done} of {deeds} deeds were made in {_PATIENCE_SECONDS} s"
            raise RuntimeError(message)
        time.sleep(_POLL_SECONDS)
    seconds = time.monotonic() - started
    by_deeds = {f"{step * deeds // _STEPS} deeds": megabytes for step, megabytes in held.items()}
    growth = held[_STEPS] - held[_STEPS // 5]
    detail = facts(deeds_per_second=deeds / seconds) + "; MB after " + str(by_deeds)
    return [at_most("worker_memory_growth", growth, MOST_MB, detail)]


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
