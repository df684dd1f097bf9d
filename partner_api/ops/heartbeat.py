"""Signs of life of worker and beat: a file each that its main loop touches, for probes to look at.

A worker that waits for a broker that is away touches nothing, so a probe should be patient (minutes):
a restart then costs nothing, and brings nothing either.
"""

import time
from pathlib import Path
from typing import Any, Final

import structlog
from celery import bootsteps
from celery.beat import PersistentScheduler
from django.conf import settings

log = structlog.get_logger(__name__)

EVERY_SECONDS: Final = 5.0
NAMES: Final = ("worker", "beat")


def touch(name: str) -> None:
    """A disk that is full must not end the process whose life is to be shown."""
    path = _path(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        log.warning("heartbeat_not_written", process=name, reason=error.strerror)


def age_seconds(name: str) -> float | None:
    """Seconds since the last sign of life on this machine; None when there was none."""
    try:
        return max(0.0, time.time() - _path(name).stat().st_mtime)
    except FileNotFoundError:
        return None


class WorkerHeartbeat(bootsteps.StartStopStep):
    """Touches from the worker's own loop, so that a loop that hangs shows."""

    requires = ("celery.worker.components:Timer",)

    def __init__(self, parent: Any, **options: Any) -> None:
        self.timer: Any = None
        super().__init__(parent, **options)

    def start(self, parent: Any) -> None:
        touch("worker")
        self.timer = parent.timer.call_repeatedly(EVERY_SECONDS, touch, ("worker",), priority=10)

    def stop(self, parent: Any) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class BeatingScheduler(PersistentScheduler):
    """Celery's own scheduler, which shows that it ticks."""

    # The default is five minutes, in which nothing could be told of it.
    max_interval = 5

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        touch("beat")
        return super().tick(*args, **kwargs)


def _path(name: str) -> Path:
    return Path(settings.HEARTBEAT_DIR) / name
