"""Probes answer within a second whatever their dependencies do, and hold no threads."""

import json
import os
import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client

from keys.models import Partner
from partner_api.local.ports import free_port
from partner_api.ops import health
from partner_api.ops.health import own_connection
from tests.api import Api
from tests.conftest import MainApi
from tests.e2e.conftest import Deployment
from tests.gate import Gate


@pytest.fixture
def hanging() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with Gate(("127.0.0.1", free_port())) as gate:
        gate.hang()
        yield gate.port


@pytest.fixture(autouse=True)
def fresh(monkeypatch: Any) -> None:
    monkeypatch.setattr(health, "_running", {})


@pytest.fixture
def only(monkeypatch: Any) -> Callable[..., None]:
    def register(**checks: health.Check) -> None:
        monkeypatch.setattr(health, "_checks", {"database": lambda: None, **checks})

    return register


def test_it_works(client: Client, db: None, main_api: Any) -> None:
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    assert {"database", "redis", "broker", "storage", "main_api"} <= answer.json()["dependencies"].keys()


def at(port: int) -> dict[str, dict[str, str]]:
    """By dependency, the settings under which it is found at this port."""
    return {
        "database": {"DATABASE_URL": f"postgres://u:top-secret@127.0.0.1:{port}/n"},
        "redis": {
            "REDIS_URL": f"redis://:top-secret@127.0.0.1:{port}/0",
            "CELERY_BROKER_URL": os.environ["REDIS_URL"],
        },
        "storage": {
            "STORAGE_BACKEND": "s3",
            "S3_BUCKET": "deeds",
            "S3_REGION": "us-west-2",
            "S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "top-secret",
        },
        "main_api": {"MAIN_API_BASE_URL": f"http://127.0.0.1:{port}"},
    }


@pytest.fixture
def refusing() -> int:
    """A port that nobody listens at."""
    return free_port()


@pytest.mark.parametrize("how", ["hanging", "refusing"])
def test_a_storage_that_is_away_is_named_and_the_others_are_not(
    deployment: Deployment, main_api: MainApi, request: pytest.FixtureRequest, how: str
) -> None:
    port = request.getfixturevalue(how)
    deployment.env["MAIN_API_BASE_URL"] = main_api.url
    deployment.start_web(**at(port)["storage"])
    for _ in range(2):
        named(deployment, "storage", (200, "degraded"))


def named(deployment: Deployment, name: str, expected: tuple[int, str]) -> None:
    answer = requests.get(f"{deployment.url}/readyz", timeout=5)
    assert answer.elapsed.total_seconds() <= 1.0
    assert (answer.status_code, answer.json()["status"]) == expected
    found = {one: facts["status"] for one, facts in answer.json()["dependencies"].items()}
    assert found.pop(name) in {"timeout", "unavailable"}
    assert set(found.values()) == {"ok"}, found
    assert "127.0.0.1" not in answer.text
    assert "top-secret" not in answer.text


def test_each_that_goes_away_under_a_running_process_is_named_and_the_others_are_not(
    deployment: Deployment, main_api: MainApi
) -> None:
    """First as one that hangs, then as one that refuses; each comes back before the next one goes."""
    names = {
        "database": "DATABASE_URL",
        "redis": "REDIS_URL",
        "broker": "CELERY_BROKER_URL",
        "main_api": "MAIN_API_BASE_URL",
    }
    given = {
        **deployment.env,
        "CELERY_BROKER_URL": deployment.env["REDIS_URL"],
        "MAIN_API_BASE_URL": main_api.url,
    }
    with ExitStack() as stack:
        gates, env = {}, {}
        for name, variable in names.items():
            parts = urlsplit(given[variable])
            assert parts.hostname is not None
            assert parts.port is not None
            gates[name] = stack.enter_context(Gate((parts.hostname, parts.port)))
            place = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{gates[name].port}".removeprefix("@")
            env[variable] = parts._replace(netloc=place).geturl()
        deployment.start_web(**env, METRICS_ALLOWED_CIDRS="127.0.0.0/8")
        stack.callback(deployment.children[0].kill)
        for close in (Gate.hang, Gate.refuse):
            for name, gate in gates.items():
                deployment.children[0].wait_until(partial(_is_ready, deployment), seconds=20)
                close(gate)
                named(deployment, name, (503, "unavailable") if name == "database" else (200, "degraded"))
                named(deployment, name, (503, "unavailable") if name == "database" else (200, "degraded"))
                if name == "database":
                    _has_metrics_in_time(deployment)
                gate.open()


def _is_ready(deployment: Deployment) -> bool:
    return bool(requests.get(f"{deployment.url}/readyz", timeout=5).json()["status"] == "ok")


def _has_metrics_in_time(deployment: Deployment) -> None:
    answer = requests.get(f"{deployment.url}/metrics", timeout=30)
    assert answer.elapsed.total_seconds() <= 2.0
    assert answer.status_code == 200
    assert 'partner_api_collector_up{collector="deeds.looks.backlog"} 0.0' in answer.text
    assert 'partner_api_collector_up{collector="deeds.circuit.suspended"} 1.0' in answer.text
    assert "partner_api_usage_rows_lost_total" in answer.text


def test_each_dependency_hanging_or_refused_is_told_within_a_second(
    deployment: Deployment, hanging: int, refusing: int
) -> None:
    """Real gunicorn, real clients; all of them hang, then all refuse."""
    for port, expected in ((hanging, {"timeout", "unavailable"}), (refusing, {"unavailable"})):
        away = ("database", "redis", "main_api")
        env = {name: text for one in away for name, text in at(port)[one].items()}
        env["CELERY_BROKER_URL"] = env["REDIS_URL"]
        deployment.start_web(**env)
        for _ in range(3):
            answer = requests.get(f"{deployment.url}/readyz", timeout=5)
            assert answer.elapsed.total_seconds() <= 1.0
            assert answer.status_code == 503
            found = {name: one["status"] for name, one in answer.json()["dependencies"].items()}
            assert found.pop("storage") == "ok"
            # A client's own timeout may come before ours; refused is always told as such.
            assert set(found.values()) <= expected, found
            assert "127.0.0.1" not in answer.text
            assert "top-secret" not in answer.text
        assert requests.get(f"{deployment.url}/healthz", timeout=5).status_code == 200
        deployment.children.pop().stop(seconds=8)


def test_a_pod_whose_open_connections_serve_is_ready_though_no_new_one_is_taken(
    deployment: Deployment, acme: Partner
) -> None:
    """When a database has too many clients, all pods are told so at the same time."""
    role, (place, name) = (
        f"few_{secrets.token_hex(4)}",
        deployment.env["DATABASE_URL"].split("@")[1].split("/"),
    )
    headers = {"Authorization": f"Bearer {Api.of(acme).text}"}

    def readiness() -> tuple[int, str]:
        answer = requests.get(f"{deployment.url}/readyz", timeout=5)
        return answer.status_code, answer.json()["dependencies"]["database"]["status"]

    with own_connection(autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'few' IN ROLE pg_read_all_data, pg_write_all_data")
        try:
            deployment.start_web(DATABASE_URL=f"postgres://{role}:few@{place}/{name}")
            deeds = f"{deployment.url}/v2/deeds"
            assert requests.get(deeds, headers=headers, timeout=5).status_code == 200
            assert readiness() == (200, "ok")
            admin.execute(f"ALTER ROLE {role} CONNECTION LIMIT 0")
            assert readiness() == (200, "degraded")
            assert requests.get(deeds, headers=headers, timeout=5).status_code == 200
            admin.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s", [role]
            )
            assert readiness() == (503, "unavailable")
        finally:
            deployment.children.pop().kill()
            admin.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s", [role]
            )
            admin.execute(f"DROP ROLE {role}")


def test_the_images_own_check_passes_where_only_the_public_host_is_served(deployment: Deployment) -> None:
    dockerfile = (Path(__file__).parent.parent.parent / "Dockerfile").read_text()
    found = re.search(r"^HEALTHCHECK[^\n]*\n\s+CMD (\[.*\])$", dockerfile, re.MULTILINE)
    assert found is not None
    port = deployment.url.rpartition(":")[2]
    command = [part.replace("8000", port) for part in json.loads(found[1])]
    deployment.start_web(ALLOWED_HOSTS="127.0.0.1,api.example.com")
    for public, expected in (("https://api.example.com", 0), ("https://other.example.com", 1)):
        env = {**os.environ, "PUBLIC_BASE_URL": public}
        done = subprocess.run([sys.executable, *command[1:]], env=env, capture_output=True, check=False)
        assert done.returncode == expected


def test_a_check_that_hangs_holds_one_thread_however_many_ask(client: Client, only: Any) -> None:
    let_go = threading.Event()
    only(stuck=lambda: let_go.wait() and None, fine=lambda: None)
    before = threading.active_count()
    started = time.monotonic()
    try:
        with ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(lambda _: health.look(), range(40)))
        assert time.monotonic() - started < 3
        assert {answer["stuck"]["status"] for answer in answers} == {"timeout"}
        assert {answer["fine"]["status"] for answer in answers} == {"ok"}
        stuck = [thread for thread in threading.enumerate() if thread.name == "readyz-stuck"]
        assert len(stuck) == 1
    finally:
        let_go.set()
    stuck[0].join(5)
    assert health.look()["stuck"]["status"] == "ok"
    assert threading.active_count() <= before + 2


def test_a_slow_one_is_not_waited_for(client: Client, only: Any) -> None:
    let_go = threading.Event()
    only(slow=lambda: let_go.wait(1.5) and None)
    started = time.monotonic()
    answer = client.get("/readyz")
    assert time.monotonic() - started <= 1.0
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    let_go.set()


def test_a_reason_stays_inside(client: Client, only: Any) -> None:
    def fails() -> None:
        message = "password of db.internal is wrong"
        raise ConnectionError(message)

    only(broken=fails)
    answer = client.get("/readyz")
    assert answer.json()["dependencies"]["broken"] == {"status": "unavailable", "latency_ms": None}


def _is_younger(file: Path) -> bool:
    return file.stat().st_mtime > 0


def test_worker_and_beat_show_life_and_its_end(deployment: Deployment, settings: Any) -> None:
    settings.HEARTBEAT_DIR = deployment.folder / "run" / "heartbeats"
    for name in ("worker", "beat"):
        with pytest.raises(CommandError, match=f"{name} has shown no sign of life"):
            call_command("check_worker", name)
    deployment.start_worker()
    deployment.start_beat()
    for name in ("worker", "beat"):
        file = settings.HEARTBEAT_DIR / name
        deployment.children[-1].wait_until(file.exists, seconds=20)
        call_command("check_worker", name, max_age=30.0)
        with pytest.raises(CommandError, match="was last alive"):
            call_command("check_worker", name, max_age=-1.0)
        # It goes on by itself: the file gets younger than it was made here.
        os.utime(file, (0, 0))
        deployment.children[-1].wait_until(partial(_is_younger, file), seconds=20)


def test_the_database_check_needs_no_place_in_the_pool(db: None) -> None:
    assert connection.settings_dict["NAME"]
    health._database()
