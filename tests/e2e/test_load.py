"""Many clients at once, against real processes: each order is one deed, each deed one PDF."""

import copy
import hashlib
import itertools
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import requests

from deeds.catalog import DEED_TYPES
from deeds.models import Deed
from keys.models import Partner
from tests.api import Api
from tests.e2e.conftest import Deployment

CLIENTS = 20
ORDERS = 80
PATIENCE_SECONDS = 150


def _order(number: int) -> dict[str, Any]:
    deed_type = list(DEED_TYPES.values())[number % len(DEED_TYPES)]
    order = copy.deepcopy(deed_type.example)
    order["order_id"] = f"LOAD-{number}"
    order["grantees"] = [{"name": f"BUYER {number}"}]
    return order


def _session(api: Api) -> requests.Session:
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {api.text}"
    return session


def test_many_orders_by_many_clients_are_as_many_deeds(deployment: Deployment, acme: Partner) -> None:
    deployment.start_sandbox()
    deployment.start_worker()
    deployment.start_web(WEB_WORKERS="2")
    api = Api.of(acme)

    def client(first: int) -> list[requests.Response]:
        with _session(api) as session:
            return [
                session.post(f"{deployment.url}/v2/deeds", json=_order(number), timeout=60)
                for number in range(first, ORDERS, CLIENTS)
            ]

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = [answer for part in pool.map(client, range(CLIENTS)) for answer in part]
    assert {answer.status_code for answer in answers} == {202}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while Deed.objects.filter(status__in=["queued", "rendering"]).exists():
        assert time.monotonic() < deadline, "deeds are still under way"
        deployment.children[0].process.poll()
        Deed.objects.raw("SELECT pg_sleep(0.2), id FROM external_deeds LIMIT 1")[0]
    deeds = list(Deed.objects.all())
    assert len(deeds) == ORDERS
    assert {deed.status for deed in deeds} == {"completed"}
    assert len({deed.order_id for deed in deeds}) == ORDERS
    assert len({deed.pdf_sha256 for deed in deeds}) == ORDERS
    files = {path.stem: path for path in (deployment.folder / "storage").rglob("*.pdf")}
    assert len(files) == ORDERS
    for deed in deeds:
        assert hashlib.sha256(files[str(deed.pk)].read_bytes()).hexdigest() == deed.pdf_sha256


def test_the_same_order_fifty_times_at_once_is_one_deed(deployment: Deployment, acme: Partner) -> None:
    deployment.start_web(WEB_WORKERS="2")
    api = Api.of(acme)

    def send(_: int) -> requests.Response:
        with _session(api) as session:
            return session.post(f"{deployment.url}/v2/deeds", json=_order(0), timeout=60)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(send, range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert Deed.objects.count() == 1


def test_sixty_requests_at_once_with_a_quota_of_twenty(deployment: Deployment, acme: Partner) -> None:
    """On two processes, before any of them is in the log by which the period's row counts."""
    Partner.objects.update(monthly_request_quota=20)
    deployment.start_web(WEB_WORKERS="2")
    api = Api.of(acme)

    def send(_: int) -> int:
        with _session(api) as session:
            return session.get(f"{deployment.url}/v2/deeds", timeout=60).status_code

    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(send, range(60)))
    assert sorted(answers) == [200] * 20 + [402] * 40


def test_many_waiting_requests_leave_room_for_others(deployment: Deployment, acme: Partner) -> None:
    """No worker runs, so those with a seat wait; those beyond the seats are answered at once."""
    deployment.start_web(WAITING_REQUESTS_PER_PROCESS="2", WEB_WORKERS="1", WEB_THREADS="8")
    api = Api.of(acme)

    def send(number: int) -> requests.Response:
        with _session(api) as session:
            return session.post(
                f"{deployment.url}/v2/deeds", json=_order(number), headers={"Prefer": "wait=30"}, timeout=60
            )

    with ThreadPoolExecutor(6) as pool, _session(api) as session:
        sent = [pool.submit(send, number) for number in range(6)]
        at_once = list(itertools.islice(as_completed(sent), 4))
        waiting = [one for one in sent if not one.done()]
        assert len(waiting) == 2, "which the four did not wait for"
        for deed in Deed.objects.all():
            session.post(f"{deployment.url}/v2/deeds/{deed.pk}/cancel", timeout=60)
        assert {one.result().json()["status"] for one in at_once} == {"queued"}
        # They waited for the end of their deeds, and not for a time.
        assert {one.result().json()["status"] for one in waiting} == {"cancelled"}
