"""A worker that is told to stop: what it makes is finished or given back, and is no crash."""

import copy
import time
from typing import Any

from deeds.catalog import DEED_TYPES
from deeds.models import Deed
from keys.models import Partner
from partner_api.local.processes import Child
from tests.api import Api
from tests.e2e.conftest import Deployment

PATIENCE_SECONDS = 20


def place(api: Api, order_id: str) -> Deed:
    order: dict[str, Any] = copy.deepcopy(DEED_TYPES["grant"].example) | {"order_id": order_id}
    return Deed.objects.get(pk=api.post("/v2/deeds", order).json()["id"])


def until(deed: Deed, status: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while deed.status != status:
        assert time.monotonic() < deadline, f"it is still {deed.status}"
        Deed.objects.raw("SELECT pg_sleep(0.05), id FROM external_deeds LIMIT 1")[0]
        deed.refresh_from_db()


def stop(worker: Child) -> float:
    started = time.monotonic()
    worker.process.terminate()
    worker.process.wait(PATIENCE_SECONDS)
    return time.monotonic() - started


def test_a_stopped_worker_finishes_or_gives_back(deployment: Deployment, acme: Partner) -> None:
    deployment.start_sandbox()
    deployment.env |= {"WORKER_STOP_SECONDS": "15", "WORKER_CONCURRENCY": "1"}
    deployment.start_worker()
    api = Api.of(acme)
    finished = place(api, "sandbox-slow-1")
    until(finished, "rendering")
    assert stop(deployment.children[-1]) < 10
    finished.refresh_from_db()
    assert (finished.status, finished.attempts) == ("completed", 1)
    deployment.env["WORKER_STOP_SECONDS"] = "0.5"
    deployment.start_worker()
    interrupted = place(api, "sandbox-slow-15")
    until(interrupted, "rendering")
    assert stop(deployment.children[-1]) < 10
    interrupted.refresh_from_db()
    assert (interrupted.status, interrupted.attempts, interrupted.crashes) == ("queued", 0, 0)
    assert interrupted.timeline[-1]["detail"] == "worker_stopped"
