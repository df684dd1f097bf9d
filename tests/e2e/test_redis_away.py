"""Redis dies and comes back empty: orders are accepted all the while, and each becomes its deed."""

import copy
import os
import signal
import statistics
import time
from pathlib import Path
from typing import Any

import requests

from deeds.catalog import DEED_TYPES
from deeds.models import Deed
from keys.models import Partner
from partner_api.local.engines import start_redis
from partner_api.local.ports import free_port
from tests.api import Api
from tests.e2e.conftest import Deployment

PATIENCE_SECONDS = 60


def test_a_redis_that_dies_costs_no_order(deployment: Deployment, acme: Partner, tmp_path: Path) -> None:
    where: Any = {"password": "x", "log": tmp_path / "redis.log", "durable": False, "port": free_port()}
    redis, deployment.env["REDIS_URL"] = start_redis(tmp_path / "redis", **where)
    deployment.env |= {"SWEEP_SECONDS": "1", "DEED_HINT_AGAIN_SECONDS": "2"}
    deployment.start_sandbox()
    deployment.start_worker()
    deployment.start_beat()
    deployment.start_web(WEB_WORKERS="2")
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {Api.of(acme).text}"

    def post(number: int) -> requests.Response:
        order = copy.deepcopy(DEED_TYPES["grant"].example) | {"order_id": f"AWAY-{number}"}
        return session.post(f"{deployment.url}/v2/deeds", json=order, timeout=30)

    answers = [post(number) for number in range(20)]
    redis.kill()
    answers += [post(number) for number in range(20, 30)]
    slowest = max(answer.elapsed.total_seconds() for answer in answers)
    readiness = requests.get(f"{deployment.url}/readyz", timeout=5)
    redis, _ = start_redis(tmp_path / "redis", **where)
    try:
        answers += [post(number) for number in range(30, 40)]
        assert {answer.status_code for answer in answers} == {202}
        assert slowest < 2
        assert (readiness.status_code, readiness.json()["status"]) == (200, "degraded")
        assert readiness.elapsed.total_seconds() < 1
        deadline = time.monotonic() + PATIENCE_SECONDS
        while Deed.objects.exclude(status="completed").exists():
            assert time.monotonic() < deadline, "deeds are still under way"
            assert not any(child.has_ended() for child in deployment.children), "a process ended"
            Deed.objects.raw("SELECT pg_sleep(0.1), id FROM external_deeds LIMIT 1")[0]
        assert Deed.objects.count() == 40
    finally:
        redis.kill()


def test_a_redis_that_hangs_costs_no_order_and_little_time(
    deployment: Deployment, acme: Partner, tmp_path: Path
) -> None:
    """It takes connections and says nothing, which is worse than one that is gone."""
    where: Any = {"password": "x", "log": tmp_path / "redis.log", "durable": False, "port": free_port()}
    redis, deployment.env["REDIS_URL"] = start_redis(tmp_path / "redis", **where)
    deployment.env |= {"SWEEP_SECONDS": "1", "DEED_HINT_AGAIN_SECONDS": "2"}
    deployment.start_sandbox()
    deployment.start_worker()
    deployment.start_beat()
    deployment.start_web(WEB_WORKERS="1")
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {Api.of(acme).text}"

    def post(number: int) -> requests.Response:
        order = copy.deepcopy(DEED_TYPES["grant"].example) | {"order_id": f"HANGS-{number}"}
        return session.post(f"{deployment.url}/v2/deeds", json=order, timeout=30)

    answers = [post(number) for number in range(3)]
    os.kill(redis.pid, signal.SIGSTOP)
    try:
        during = [post(number) for number in range(3, 23)]
    finally:
        os.kill(redis.pid, signal.SIGCONT)
    try:
        seconds = [answer.elapsed.total_seconds() for answer in during]
        assert {answer.status_code for answer in answers + during} == {202}
        assert max(seconds) < 4, "who asks waits for its timeouts: the limiter's, the broker's"
        assert statistics.median(seconds) < 0.2, "the others go around it"
        deadline = time.monotonic() + PATIENCE_SECONDS
        while Deed.objects.exclude(status="completed").exists():
            assert time.monotonic() < deadline, "deeds are still under way"
            assert not any(child.has_ended() for child in deployment.children), "a process ended"
            Deed.objects.raw("SELECT pg_sleep(0.1), id FROM external_deeds LIMIT 1")[0]
        assert Deed.objects.count() == len(answers + during)
    finally:
        redis.kill()
