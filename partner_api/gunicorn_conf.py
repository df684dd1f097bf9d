"""How gunicorn serves the API: threads, because a request may wait for its deed.

Every figure can be overridden from the environment; docs/configuration.md lists them.
"""

import os
from typing import Any

bind = os.environ.get("WEB_BIND", "0.0.0.0:8000")
worker_class = "partner_api.http.worker.ProblemWorker"
workers = int(os.environ.get("WEB_WORKERS", "2"))
threads = int(os.environ.get("WEB_THREADS", "24"))
# A request may wait 30 s for its deed; a worker that has not answered its parent for longer hangs.
timeout = 60
# Longer than the longest wait, so that a stop loses no request.
graceful_timeout = 35
keepalive = 65
# A header of 8 kB is refused by gunicorn itself with 431/400; keys are far shorter.
limit_request_line = 4094
limit_request_field_size = 8190
accesslog = None
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108, PTH112 - a heartbeat file must not wait for a disk


def post_worker_init(worker: Any) -> None:
    """A new worker stores at once what an ended one left in the request log's spool."""
    from billing.draining import drainer  # noqa: PLC0415 - it needs the settings

    drainer().ensure_running()
