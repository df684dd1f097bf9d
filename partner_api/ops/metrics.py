"""Where metrics are put together: what processes counted, and what the database says at the moment.

Each app declares its counters in its `metrics` module with prometheus_client's types; with
PROMETHEUS_MULTIPROC_DIR set, the processes of a machine add up there. Facts that stand in rows
(ages, backlogs) are not counted but looked up while Prometheus reads, by functions that the apps
register here: each gets a second, is asked every few seconds at most, and can't fail the page.
docs/metrics.md lists all.
"""

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog
from billiard.process import current_process
from django.conf import settings
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest, values
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from partner_api.ops import database_looks

log = structlog.get_logger(__name__)

# From a quick read to a request that waits for its deed.
LATENCY_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


def _who_counts() -> str:
    """The name of a process's files: its pid, or its place in Celery's pool.

    Celery replaces its children for ever; by pid, each would leave files behind for ever. A
    successor in the same place goes on counting in the same files.
    """
    place = getattr(current_process(), "index", None)
    return str(os.getpid()) if place is None else f"{os.getppid()}-{place}"


if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).mkdir(parents=True, exist_ok=True)
    values.ValueClass = values.MultiProcessValue(_who_counts)  # type: ignore[no-untyped-call]  # of prometheus_client

REQUESTS = Counter(
    "partner_api_requests_total",
    "Answers of the API, by route, method, status and who asked (live, test, staff, none).",
    ["route", "method", "status", "partner_class"],
)
REQUEST_SECONDS = Histogram(
    "partner_api_request_seconds",
    "Time to answer, by route; an order that waits for its deed counts its waiting.",
    ["route"],
    buckets=LATENCY_BUCKETS,
)
PROBLEMS = Counter(
    "partner_api_problems_total",
    "Error answers, by the code that the client was given.",
    ["code"],
)


def begin_at_zero(metric: Counter | Histogram, *values: Iterable[str]) -> None:
    """Shows the series of all these label values (one group a label) before anything happened.

    Prometheus sees an increase only between two values; the first event of a series that begins with it is
    none. For labels whose values are few and known.
    """
    for labels in itertools.product(*values):
        metric.labels(*labels)


CollectorFunction = Callable[[], Iterable[Metric]]


@dataclass
class _Collector:
    """One registered function, and what it said last."""

    name: str
    function: CollectorFunction
    uses_database: bool
    families: list[Metric] = field(default_factory=list)
    is_up: bool = False
    at: float = float("-inf")


_collectors: dict[str, _Collector] = {}
_lock = threading.Lock()


def register_collector(function: CollectorFunction, *, uses_database: bool = True) -> CollectorFunction:
    """Adds a function that yields families (GaugeMetricFamily and the like) at each look.

    It runs inside a transaction whose statements are bounded to a second (what asks someone other
    than the database bounds itself). Families are
    yielded also when they have no sample, so that their names are known. Usable as a decorator.
    """
    name = f"{function.__module__}.{function.__qualname__}"
    _collectors[name] = _Collector(name, function, uses_database)
    return function


def exposition() -> bytes:
    """Everything in Prometheus' text format: all processes' counts, and the looks into the database."""
    looked_up = CollectorRegistry()
    looked_up.register(_Looks())
    return counted() + generate_latest(looked_up)


def counted() -> bytes:
    """Only what processes counted: for processes beside the web server's."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    _Counts(registry)  # type: ignore[no-untyped-call]  # it has no types
    return generate_latest(registry)


def forget_process(pid: int) -> None:
    """Live gauges of a web process that ended disappear; what it counted stays.

    A child of Celery's has its files by its place, and its successor goes on in them.
    """
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        mark_process_dead(pid)  # type: ignore[no-untyped-call]  # it has no types


class _Counts(MultiProcessCollector):
    """The library's, without the files that a process has only just made, or died while making."""

    def collect(self) -> Any:
        files = [str(file) for file in Path(self._path).glob("*.db") if _bytes_in(file)]
        return self.merge(files, accumulate=True)  # type: ignore[no-untyped-call]  # it has no types


def _bytes_in(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0  # a live gauge of a process that has ended since


class _Looks:
    """prometheus_client's side of the registered functions."""

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "partner_api_collector_up",
            "1 where a look into the database worked, 0 where it failed or took too long.",
            labels=["collector"],
        )
        # One scrape looks at a time; another that comes meanwhile is given what this one finds.
        with _lock:
            _refresh_all()
            for collector in _collectors.values():
                up.add_metric([collector.name], float(collector.is_up))
        for collector in _collectors.values():
            yield from collector.families
        yield up


def _refresh_all() -> None:
    now = time.monotonic()
    due = [one for one in _collectors.values() if now - one.at >= settings.METRICS_CACHE_SECONDS]
    for collector in due:
        if not collector.uses_database:
            _refresh(collector, list)
    of_database = [one for one in due if one.uses_database]
    if of_database:
        with database_looks.open_connection() as look:
            for collector in of_database:
                _refresh(collector, look)


def _refresh(collector: _Collector, look: Callable[[Iterable[Metric]], list[Metric]]) -> None:
    try:
        collector.families = look(collector.function())
        collector.is_up = True
    except Exception as error:  # noqa: BLE001 - one look that fails must not hide the others
        log.warning("collector_failed", collector=collector.name, reason=type(error).__name__)
        # What was true a while ago is not shown as if it were true now.
        collector.families = []
        collector.is_up = False
    collector.at = time.monotonic()
