"""Keys over several processes: what one learns holds on the next request to any other."""

import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests

from keys import audit, lifecycle
from keys.models import Partner
from partner_api.local.engines import start_redis
from partner_api.local.ports import free_port
from tests.api import Api
from tests.e2e.conftest import Deployment

BY = audit.Actor.command("test")


def _two_servers(deployment: Deployment) -> list[str]:
    urls = []
    for _ in range(2):
        deployment.url = f"http://127.0.0.1:{free_port()}"
        deployment.start_web(WEB_BIND=deployment.url.removeprefix("http://"), WEB_WORKERS="1")
        urls.append(deployment.url)
    return urls


def test_two_hundred_at_once_on_two_processes_pass_exactly_as_many_as_allowed(
    deployment: Deployment, acme: Partner
) -> None:
    urls, api = _two_servers(deployment), Api.of(acme)
    lifecycle.change(BY, api.key, rate_limit_per_minute=1, rate_limit_burst=150)
    at_once = threading.Barrier(200)

    def ask(number: int) -> requests.Response:
        at_once.wait(timeout=30)
        where = f"{urls[number % 2]}/v2/deed-types"
        return requests.get(where, headers={"X-API-Key": api.text}, timeout=30)

    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(ask, range(200)))
    passed = [answer for answer in answers if answer.status_code == 200]
    assert Counter(answer.status_code for answer in answers) == {200: 150, 429: 50}
    left = {int(answer.headers["X-RateLimit-Remaining"]) for answer in passed}
    assert left == set(range(150)), "each was told of a place of its own"


def test_an_act_holds_on_the_next_request_to_every_process(deployment: Deployment, acme: Partner) -> None:
    urls = _two_servers(deployment)

    def ask(api: Api) -> set[tuple[int, str]]:
        answers = [
            requests.get(f"{url}/v2/deeds", headers={"X-API-Key": api.text}, timeout=10) for url in urls
        ]
        return {(answer.status_code, answer.json().get("code", "")) for answer in answers}

    revoked, narrowed, slowed, suspended = (Api.of(acme) for _ in range(4))
    for api in (revoked, narrowed, slowed, suspended):
        assert ask(api) == {(200, "")}
    lifecycle.revoke(BY, revoked.key, reason="leaked")
    assert ask(revoked) == {(401, "api_key_revoked")}
    lifecycle.change(BY, narrowed.key, scopes=["deed:create"])
    assert ask(narrowed) == {(403, "insufficient_scope")}
    lifecycle.change(BY, slowed.key, rate_limit_per_minute=1, rate_limit_burst=1)
    ask(slowed)
    assert ask(slowed) == {(429, "rate_limited")}
    lifecycle.change_partner(BY, acme, status="suspended", reason="unpaid")
    assert ask(suspended) == {(401, "partner_suspended")}
    lifecycle.change_partner(BY, acme, status="active")
    assert ask(suspended) == {(200, "")}


def test_redis_killed_under_load_costs_no_request(
    deployment: Deployment, acme: Partner, tmp_path: Path
) -> None:
    where: Any = {"password": "x", "log": tmp_path / "redis.log", "durable": False, "port": free_port()}
    redis, deployment.env["REDIS_URL"] = start_redis(tmp_path / "redis", **where)
    deployment.start_web(WEB_WORKERS="2")
    api = Api.of(acme)
    lifecycle.change(BY, api.key, rate_limit_per_minute=1_000_000, rate_limit_burst=100_000)
    stop, answers = threading.Event(), []

    def load() -> None:
        with requests.Session() as session:
            session.headers["Authorization"] = f"Bearer {api.text}"
            while not stop.is_set():
                answers.append(session.get(f"{deployment.url}/v2/deeds", timeout=10))

    def count_to(more: int) -> None:
        wanted = len(answers) + more
        while len(answers) < wanted:
            stop.wait(0.01)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        count_to(40)
        redis.kill()
        count_to(80)
        redis, _ = start_redis(tmp_path / "redis", **where)
        deadline = time.monotonic() + 20
        while "limiter_with_redis_again" not in deployment.children[0].log.read_text():
            assert time.monotonic() < deadline, "the limiter has not gone back to Redis"
            count_to(10)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        redis.kill()
    assert {answer.status_code for answer in answers} == {200}
    assert max(answer.elapsed.total_seconds() for answer in answers) < 3
    logged = deployment.children[0].log.read_text()
    workers = 2
    assert 1 <= logged.count("limiter_without_redis") <= 2 * workers


def test_a_report_on_a_leak_has_what_the_key_did_up_to_the_end(deployment: Deployment, acme: Partner) -> None:
    """Web processes keep the last rows for a moment, and the last request of a thief is among them."""
    deployment.start_web(USAGE_DRAIN_SECONDS="6", WEB_WORKERS="2")
    api = Api.of(acme)
    for _ in range(5):
        answer = requests.get(f"{deployment.url}/v2/deeds", headers={"X-API-Key": api.text}, timeout=10)
        assert answer.status_code == 200
    said = subprocess.run(
        [sys.executable, "manage.py", "report_leak", api.text],
        env=deployment.env,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert "5 requests since" in said, said
