"""What the door costs: an authenticated read with everything on, against the floor and the packages."""

import statistics
import subprocess
import sys
from functools import partial
from typing import Any

from bench.harness import Bench, Figure, at_least, at_most, facts, in_turns, measure, ratio
from bench.load import http

ROUNDS = 4
SECONDS = 1
TAILS = 5
TAIL_SECONDS = 2
# A new connection's first answers are late, for the server opens one to Postgres; and for two seconds what
# was logged at saturation still waits to be stored.
TAIL_WARM_SECONDS = 2.2
_GROWTH = """
from pathlib import Path
from keys.rate_limit import Limit, MemoryLimiter
def kilobytes():
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0])
limiter, limit = MemoryLimiter(40_000), Limit(120, 30)
before = kilobytes()
for number in range(1_000_000):
    limiter.take(f"{number:016d}", limit)
print((kilobytes() - before) / 1024, len(limiter))
"""


def run(bench: Bench) -> list[Figure]:
    ours, floor, packages = _requests()
    return [*_rates(bench, ours, floor, packages), _tails(bench, ours), _growth()]


def _rates(bench: Bench, ours: list[str], floor: list[str], packages: list[str]) -> list[Figure]:
    """At saturation."""
    url = bench.web(workers=None)
    for lines in (ours, floor, packages):
        measure(url, lines, seconds=1)  # warm

    def turn(lines: list[str]) -> float:
        return measure(url, lines, seconds=SECONDS).per_second

    sides = {"ours": ours, "floor": floor, "packages": packages}
    values = in_turns({name: partial(turn, lines) for name, lines in sides.items()}, rounds=ROUNDS)
    bench.end_suite()
    best = {f"{name}_per_second": max(found) for name, found in values.items()}
    return [
        at_least("authed_get_vs_floor", ratio(values, "ours", "floor"), 0.8, facts(**best)),
        at_least("authed_get_vs_packages", ratio(values, "ours", "packages"), 3, facts(**best)),
    ]


def _tails(bench: Bench, ours: list[str]) -> Figure:
    """At half of saturation, of one process: with two on two cores, Postgres, Redis and the client that
    measures have no core of their own, and what is late is the machine's.
    """
    url = bench.web()
    # Beside it what the machine and the server alone make of it, at the same rate.
    bare = [http("GET", "/healthz")]
    measure(url, ours, seconds=1)  # warm

    found = []
    for _ in range(TAILS):
        # What this machine does in a second changes while the bench runs.
        rate = measure(url, ours, seconds=1).per_second / 2
        found.append(_tail(url, ours, rate, TAIL_SECONDS))
    detail = facts(per_second=rate, worst=max(found), of_a_bare_answer=_tail(url, bare, rate, 1))
    return at_most("p99_vs_p50", statistics.median(found), 3, detail)


def _tail(url: str, lines: list[str], rate: float, seconds: float) -> float:
    measured = measure(url, lines, seconds=seconds, rate=rate, warm_seconds=TAIL_WARM_SECONDS)
    return measured.percentile(0.99) / measured.percentile(0.5)


def _growth() -> Figure:
    done = subprocess.run([sys.executable, "-c", _GROWTH], capture_output=True, text=True, check=True)
    megabytes, kept = done.stdout.split()
    return at_most("limiter_memory_growth", float(megabytes), 20, f"MB after 1,000,000 keys, {kept} kept")


def _requests() -> tuple[list[str], list[str], list[str]]:
    from rest_framework_api_key.models import APIKey

    from bench.orders import partner_with_key, place

    partner, text = partner_with_key("Bench reads")
    deeds = [str(deed.pk) for deed in place(partner, 50)]
    _, package_key = APIKey.objects.create_key(name="bench")
    ours: dict[str, Any] = {"Authorization": f"Bearer {text}"}
    theirs: dict[str, Any] = {"Authorization": f"Api-Key {package_key}", "X-Bench-Key": package_key[:8]}
    return (
        [http("GET", f"/v2/deeds/{deed}", headers=ours) for deed in deeds],
        [http("GET", f"/bench/read/{deed}", headers=ours) for deed in deeds],
        [http("GET", f"/bench/packages/{deed}", headers=theirs) for deed in deeds],
    )
