"""The Celery application: where its settings come from, and how a request id travels with a task.

A message is only a hint that a row wants work (the row is the truth), so a message is acknowledged
late and a worker that dies gives its message back.
"""

import io
import os
import signal
import sys
import threading
from typing import Any

import structlog
from celery import Celery, signals
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from partner_api import broker

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "partner_api.settings")

broker.install()
app = Celery("partner_api")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.steps["worker"].add("partner_api.ops.heartbeat:WorkerHeartbeat")


@signals.setup_logging.connect
def _keep_our_logging(**_: Any) -> None:
    """Having a receiver here stops Celery from replacing the logging of the settings."""


@signals.celeryd_after_setup.connect
def _without_banner(instance: Any, **_: Any) -> None:
    """The banner is no log line, shows addresses, and its print fails where the disk of the log is full."""
    instance.quiet = True
    # What a full disk did not take stays in Python's buffers, and the flush before a fork would fail on it.
    sys.stdout, sys.stderr = _unbuffered(1), _unbuffered(2)


def _unbuffered(descriptor: int) -> io.TextIOWrapper:
    """As `python -u` has it."""
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)


@signals.worker_init.connect
@signals.beat_init.connect
def _refuse_insecure_start(**_: Any) -> None:
    from partner_api.ops.checks import refuse_insecure_start  # noqa: PLC0415 - it needs the settings

    try:
        refuse_insecure_start()
    except ImproperlyConfigured as error:
        # Celery logs what a receiver raises and goes on; only this ends the process.
        sys.exit(str(error))


@signals.worker_shutting_down.connect
def _wait_no_longer_than_told(how: str, **_: Any) -> None:
    """SIGTERM lets running tasks end. What then still runs is interrupted, and gives back what it holds."""
    if how == "Warm":
        timer = threading.Timer(settings.WORKER_STOP_SECONDS, os.kill, (os.getpid(), signal.SIGQUIT))
        timer.daemon = True
        timer.start()


@signals.before_task_publish.connect
def _send_request_id(headers: dict[str, Any], **_: Any) -> None:
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    if request_id is not None:
        headers.setdefault("request_id", request_id)


@signals.task_prerun.connect
def _bind_request_id(task_id: str, task: Any, **_: Any) -> None:
    structlog.contextvars.clear_contextvars()
    bound = {"task": task.name, "task_id": task_id}
    request_id = task.request.get("request_id")
    if request_id:
        bound["request_id"] = request_id
    structlog.contextvars.bind_contextvars(**bound)


@signals.task_postrun.connect
def _unbind(**_: Any) -> None:
    structlog.contextvars.clear_contextvars()
