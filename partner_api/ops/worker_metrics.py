"""Celery's metrics: how long tasks take and how they end, by signals; how long the queues are, by a look."""

import threading
import time
from collections.abc import Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from celery import current_app, signals
from django.conf import settings
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from partner_api.ops import health, metrics, scraping

TASKS = Counter(
    "partner_api_tasks_total", "Celery tasks that ended, by name and outcome.", ["task", "outcome"]
)
TASK_SECONDS = Histogram(
    "partner_api_task_seconds",
    "Time of a Celery task, by name.",
    ["task"],
    buckets=metrics.LATENCY_BUCKETS,
)
TASK_LAST_SUCCESS = Gauge(
    "partner_api_task_last_success_timestamp_seconds",
    "When a Celery task of this name last ended well (Unix time).",
    ["task"],
    multiprocess_mode="max",
)
_started = threading.local()


@signals.task_prerun.connect
def _note_start(**_: Any) -> None:
    _started.at = time.perf_counter()


@signals.task_postrun.connect
def _count(task: Any, state: str | None = None, **_: Any) -> None:
    TASKS.labels(task.name, (state or "UNKNOWN").lower()).inc()
    if hasattr(_started, "at"):
        TASK_SECONDS.labels(task.name).observe(time.perf_counter() - _started.at)
    if state == "SUCCESS":
        TASK_LAST_SUCCESS.labels(task.name).set(time.time())


@signals.worker_init.connect
def _serve(**_: Any) -> None:
    """In the worker's main process: what all its children count, on a port of its own, if one is set."""
    if settings.WORKER_METRICS_PORT:
        server = make_server("", settings.WORKER_METRICS_PORT, _answer, WSGIServer, _Quiet)
        threading.Thread(target=server.serve_forever, daemon=True, name="metrics").start()


def queue_lengths() -> Iterator[Metric]:
    length = GaugeMetricFamily(
        "partner_api_queue_length", "Messages that no worker has taken yet, by queue.", labels=["queue"]
    )
    yield length
    with health.connect_to_broker() as broker:
        for name in current_app.amqp.queues:
            length.add_metric([name], _length(broker, name))


def _length(broker: Any, name: str) -> float:
    try:
        return float(broker.default_channel.queue_declare(name, passive=True).message_count)
    except broker.channel_errors:
        return 0.0  # Redis has no list where nothing waits


metrics.register_collector(queue_lengths, uses_database=False)


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        """A scrape every few seconds is no news."""


def _answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    address = environ.get("REMOTE_ADDR")
    if environ["PATH_INFO"] != "/metrics" or not scraping.may_scrape(
        environ.get("HTTP_AUTHORIZATION", ""), address
    ):
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"not found\n"]
    start_response("200 OK", [("Content-Type", scraping.CONTENT_TYPE)])
    return [metrics.counted()]
