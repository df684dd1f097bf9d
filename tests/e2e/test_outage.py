"""The Main API is away for a while: all orders are accepted, and all are made soon after it is back."""

import copy
import time
from typing import Any

import requests

from deeds.catalog import DEED_TYPES
from deeds.models import Deed
from keys.models import Partner
from tests.api import Api
from tests.e2e.conftest import Deployment

ORDERS = 40
PATIENCE_SECONDS = 110


def pause(seconds: float) -> None:
    Deed.objects.raw("SELECT pg_sleep(%s), id FROM external_deeds LIMIT 1", [seconds])[0]


def circuit_of(deployment: Deployment) -> str:
    shown: dict[str, Any] = requests.get(f"{deployment.url}/readyz", timeout=5).json()
    return str(shown["dependencies"]["main_api"]["circuit"])


def test_all_are_made_soon_after_it_is_back(deployment: Deployment, acme: Partner) -> None:
    deployment.env |= {"SWEEP_SECONDS": "1", "CIRCUIT_REST_SECONDS": "1", "MAIN_API_RETRY_SECONDS": "0.01"}
    deployment.start_worker()
    deployment.start_beat()
    deployment.start_web()
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {Api.of(acme).text}"
    orders = [copy.deepcopy(DEED_TYPES["grant"].example) | {"order_id": f"OUT-{n}"} for n in range(ORDERS)]
    half = ORDERS // 2
    answers = [session.post(f"{deployment.url}/v2/deeds", json=order, timeout=10) for order in orders[:half]]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while circuit_of(deployment) == "closed":
        assert time.monotonic() < deadline, "the circuit did not open"
        pause(0.1)
    batch = session.post(f"{deployment.url}/v2/deeds/batch", json={"orders": orders[half:]}, timeout=10)
    assert {answer.status_code for answer in answers} == {202}
    assert {result["status"] for result in batch.json()["data"]} == {202}
    assert not Deed.objects.filter(status="completed").exists()
    tried = sum(Deed.objects.values_list("attempts", flat=True))
    assert tried < ORDERS, "most of them waited without an attempt"
    deployment.start_sandbox()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while Deed.objects.exclude(status="completed").exists():
        assert time.monotonic() < deadline, "deeds are still under way"
        pause(0.1)
    assert Deed.objects.count() == ORDERS
    assert circuit_of(deployment) == "closed"
