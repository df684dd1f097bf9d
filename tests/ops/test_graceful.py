"""A stop loses nothing: no request that was sent to a web process, no task that a worker had taken.

What "no failed request" means: a new version is rolled out as an orchestrator does it. The load balancer
stops sending to the old process, which then gets SIGTERM and answers all that it has; or gunicorn gets
SIGHUP and replaces its workers behind one listening socket. In neither may a client see an error.
"""

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import requests

from deeds.models import Deed
from keys.models import ApiKey, Partner
from partner_api.local.ports import free_port
from tests.api import Api
from tests.e2e.conftest import Deployment

PER_SECOND = 50


@dataclass
class Load:
    """Requests at a steady rate, each on a connection of its own; `url` may change under way."""

    url: str
    headers: dict[str, str]
    failed: list[str] = field(default_factory=list)
    answered: int = 0

    def one(self, _: int) -> None:
        try:
            answer = requests.get(
                f"{self.url}/v2/deed-types/grant", headers={**self.headers, "Connection": "close"}, timeout=30
            )
        except requests.RequestException as error:
            self.failed.append(type(error).__name__)
            return
        self.answered += 1
        if answer.status_code != 200:
            self.failed.append(str(answer.status_code))

    def run(self, stop: threading.Event) -> None:
        with ThreadPoolExecutor(32) as pool:
            number = 0
            while not stop.wait(1 / PER_SECOND):
                pool.submit(self.one, number)
                number += 1


def test_no_request_fails_while_web_processes_are_replaced(
    deployment: Deployment, acme: Partner, order: Any
) -> None:
    deployment.start_web(WEB_WORKERS="1")
    old = deployment.children[0]
    api = Api.of(acme)
    ApiKey.objects.update(rate_limit_per_minute=100_000, rate_limit_burst=10_000)
    load = Load(deployment.url, {"Authorization": f"Bearer {api.text}"})
    stop = threading.Event()
    running = threading.Thread(target=load.run, args=(stop,))
    running.start()
    try:
        _replaced(old, load, lambda: old.process.send_signal(signal.SIGHUP))
        # A second process on another port, as the next pod has another address.
        url = f"http://127.0.0.1:{free_port()}"
        deployment.url, first = url, deployment.url
        deployment.start_web(WEB_BIND=url.removeprefix("http://"), PUBLIC_BASE_URL=url)
        with ThreadPoolExecutor(8) as pool:
            # Orders that wait for their deeds (no worker runs): these are under way when SIGTERM comes.
            waiting = [
                pool.submit(
                    requests.post,
                    f"{first}/v2/deeds",
                    json=order() | {"order_id": f"G-{number}"},
                    headers={**load.headers, "Prefer": "wait=3"},
                    timeout=30,
                )
                for number in range(8)
            ]
            old.wait_until(lambda: Deed.objects.count() == 8, seconds=15)
            load.url = url
            # What was sent a moment ago still arrives: the balancer's own delay, as in preStop.
            time.sleep(0.5)
            old.process.send_signal(signal.SIGTERM)
            answers = [one.result() for one in waiting]
        assert old.process.wait(30) == 0
        assert {answer.status_code for answer in answers} == {202}
        before = load.answered
        deployment.children[-1].wait_until(lambda: load.answered > before + 20, seconds=15)
    finally:
        stop.set()
        running.join()
    assert load.failed == []
    assert load.answered > 2 * PER_SECOND
    assert "Handling signal: term" in old.log.read_text()


def _replaced(web: Any, load: Load, reload: Any) -> None:
    """After gunicorn's workers were replaced, with requests under way before and after."""
    web.wait_until(lambda: load.answered > 20, seconds=20)
    reload()
    booted = "Booting worker"
    web.wait_until(lambda: web.log.read_text().count(booted) >= 2, seconds=20)
    web.wait_until(lambda: web.log.read_text().count("Worker exiting") >= 1, seconds=60)
    before = load.answered
    web.wait_until(lambda: load.answered > before + 20, seconds=20)


def test_a_worker_that_is_stopped_loses_no_deed(deployment: Deployment, acme: Partner, order: Any) -> None:
    deployment.env |= {"SANDBOX_RENDER_SECONDS": "0.3", "WORKER_CONCURRENCY": "2"}
    # A message that was on its way to the worker as it stopped is only a hint: the sweeper gives it again.
    deployment.env |= {"DEED_HINT_AGAIN_SECONDS": "2", "SWEEP_SECONDS": "1"}
    deployment.start_sandbox()
    deployment.start_worker()
    first = deployment.children[-1]
    deployment.start_web(WEB_WORKERS="1")
    api = Api.of(acme)
    orders = [order() | {"order_id": f"T-{number}"} for number in range(12)]
    answer = requests.post(
        f"{deployment.url}/v2/deeds/batch",
        json={"orders": orders},
        headers={"Authorization": f"Bearer {api.text}"},
        timeout=30,
    )
    assert answer.status_code == 207
    first.wait_until(lambda: Deed.objects.filter(status="completed").count() >= 2, seconds=30)
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(30) == 0
    done = Deed.objects.filter(status="completed").count()
    assert done < 12
    # What it had taken it has finished: nothing waits for a lease to run out.
    assert Deed.objects.filter(status="rendering").count() == 0
    deployment.start_beat()
    deployment.start_worker()
    second = deployment.children[-1]
    second.wait_until(lambda: Deed.objects.filter(status="completed").count() == 12, seconds=60)
    assert {deed.crashes for deed in Deed.objects.all()} == {0}
    assert {deed.attempts for deed in Deed.objects.all()} == {1}
