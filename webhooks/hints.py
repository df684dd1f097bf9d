"""Tells the workers that rows are waiting. A hint that gets lost costs time, never a row.

One message is enough for any number of rows, because a task looks for all that wait: a further hint is
left out while one is on its way. The task takes the mark away before it looks, so that a row written
after its look finds no mark and hints again.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog
from django.core.cache import cache
from django.db import transaction
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from partner_api.broker import send

log = structlog.get_logger(__name__)

DELIVER: Final = "webhooks.tasks.deliver"
PROCESS: Final = "webhooks.tasks.process"
# A message that was lost is sent again after this time at the latest.
_MARK_SECONDS: Final = 5
# So many seconds' rows share one hint of this process.
_MOMENT_SECONDS: Final = 0.02

_sender = ThreadPoolExecutor(1, thread_name_prefix="webhook-hints")
_scheduled: set[str] = set()
_lock = threading.Lock()


def hint_on_commit(task: str) -> None:
    transaction.on_commit(lambda: hint(task), robust=True)


def hint(task: str) -> None:
    """Sends a message, unless one is on its way. Without a broker the sweeper finds the rows."""
    try:
        if cache.add(_mark(task), 1, timeout=_MARK_SECONDS):
            send(task)
    except (OperationalError, RedisError) as error:
        log.warning("broker_unavailable", task=task, reason=type(error).__name__)


def hint_soon(task: str) -> None:
    """The same from a thread: who waits for an answer does not wait for this. Not in a transaction."""
    with _lock:
        if task in _scheduled:
            return
        _scheduled.add(task)
    _sender.submit(_hint_after_a_moment, task)


def _hint_after_a_moment(task: str) -> None:
    time.sleep(_MOMENT_SECONDS)
    # Before the hint: what is written from here on schedules another.
    with _lock:
        _scheduled.discard(task)
    hint(task)


def taken(task: str) -> None:
    """Called by the task before it looks for rows."""
    try:
        cache.delete(_mark(task))
    except RedisError as error:
        log.warning("cache_unavailable", task=task, reason=type(error).__name__)


def _mark(task: str) -> str:
    return f"webhooks:hinted:{task}"
