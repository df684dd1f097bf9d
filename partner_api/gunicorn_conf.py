"""How gunicorn serves the API: threads, because a request may wait for its deed.

Figures that depend on the machine are settings; docs/configuration.md lists them.
"""

import gc
import os
import resource
import sys
from pathlib import Path
from typing import Any

from partner_api.environment import Env, ends_in_one_line, read_files, stop_if_misconfigured
from partner_api.ops.logging import FORMATS, LEVELS, logging_config

_env = Env()
# gunicorn shows a traceback of what its configuration raises.
with ends_in_one_line():
    # As the settings do, which are loaded later.
    read_files(Path(__file__).resolve().parent.parent)
    bind = _env.str("WEB_BIND", default="0.0.0.0:8000")
    # A process a core: Python's threads share one. Two, so that one that ends leaves one that serves.
    workers = _env.int("WEB_WORKERS", default=2)
    # Half may wait for deeds (WAITING_REQUESTS_PER_PROCESS) and the other half still answers at once.
    threads: int = _env.int("WEB_THREADS", default=24)
    # Whether each process keeps to one core. Its threads hand Python's lock to each other some ten times a
    # request, which costs less without another core to wake. Two servers of one machine would meet on one.
    _IS_PINNED = _env.bool("WEB_PINNED", default=False)
    _LOGGING = logging_config(
        level=_env.choice("LOG_LEVEL", LEVELS, default="INFO"),
        log_format=_env.choice("LOG_FORMAT", FORMATS, default="json"),
    )
worker_class = "partner_api.http.worker.ProblemWorker"
# A request may wait 30 s for its deed; a worker that has not answered its parent for longer hangs.
timeout = 60
# Longer than the longest wait, so that a stop loses no request. The orchestrator must allow more still.
graceful_timeout = 35
# Longer than the idle time of the usual load balancer (60 s): it closes first, never we under a request.
keepalive = 65
# New connections queue in the kernel while a worker is replaced.
backlog = 2048


def connections_within(files: int) -> int:
    """How many connections a process may have that may open so many files. gunicorn ends one, with all its
    requests, that can't open another; besides connections it has those to Postgres, Redis and the storage.
    """
    if files == resource.RLIM_INFINITY:
        return _MOST_CONNECTIONS
    return max(2 * threads, min(_MOST_CONNECTIONS, files - _OTHER_FILES))


_MOST_CONNECTIONS = 1000
_OTHER_FILES = 128
worker_connections = connections_within(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
# Heads are parsed in C. Bodies are framed by gunicorn in either case, and what could be framed in two ways is
# refused by both (tests/http/test_framing.py).
http_parser = "fast"
# A header of 8 kB is refused by gunicorn itself with 431/400; keys are far shorter.
limit_request_line = 4094
limit_request_field_size = 8190
# Nobody steers a running server but by signals. The default place is in $HOME, for all of a user alike.
control_socket_disable = True
# The access log is ours (partner_api.ops.access_log), with request id, route and latency.
accesslog = None
logger_class = "partner_api.http.worker.Log"
logconfig_dict = {
    **_LOGGING,
    "loggers": {"gunicorn.error": {"level": "INFO", "handlers": [], "propagate": True}},
}
# How long a thread may keep the interpreter while others wait. The thread that stores the request log works
# in long stretches, and a request gives way some five times: Python's 5 ms would be 25 in the tail.
_SWITCH_SECONDS = 0.0005
# A heartbeat file must not wait for a disk.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - memory, not a disk


def on_starting(server: Any) -> None:
    """A setting that is wrong ends gunicorn here, with one line, and not each worker with a traceback."""
    stop_if_misconfigured()


def child_exit(server: Any, worker: Any) -> None:
    """Live gauges of a worker that ended leave the metrics, and its connections are nobody's."""
    from partner_api.http.worker import open_connections  # noqa: PLC0415 - loaded by gunicorn, once it logs
    from partner_api.ops.metrics import forget_process  # noqa: PLC0415 - it needs the settings

    open_connections.forget(worker.age)
    forget_process(worker.pid)


def post_worker_init(worker: Any) -> None:
    """A new worker stores at once what an ended one left in the request log's spool."""
    from billing.draining import drainer  # noqa: PLC0415 - it needs the settings

    if _IS_PINNED:
        cores = sorted(os.sched_getaffinity(0))
        # gunicorn numbers its workers as they come, those in place of others included.
        os.sched_setaffinity(0, {cores[worker.age % len(cores)]})
    drainer().ensure_running()
    sys.setswitchinterval(_SWITCH_SECONDS)
    # What was loaded stays as long as the process: collections need not look at it again and again, which
    # would stop all requests for as long as some hundred thousand objects take.
    gc.collect()
    gc.freeze()
    # A request leaves some hundred objects in cycles. To look for those of one or two takes a fraction of a
    # millisecond; for the ten thousand that suit a start (partner_api/__init__.py) four, in which all wait.
    gc.set_threshold(400, 20, 20)
