"""What reaches gunicorn and not Django: broken HTTP, headers and bodies that are too large."""

import json
import os
import socket
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from keys.models import Partner
from tests.api import Api
from tests.e2e.conftest import Deployment


def raw(deployment: Deployment, request: bytes) -> tuple[int, dict[str, object]]:
    """Status and body of what must be a whole problem."""
    parts = urlsplit(deployment.url)
    assert parts.hostname is not None
    with socket.create_connection((parts.hostname, parts.port or 80), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    problem = json.loads(body)
    assert f"X-Request-ID: {problem['request_id']}".encode() in head
    assert problem["type"].endswith(f"/docs/errors#{problem['code']}")
    return int(head.split()[1]), problem


def test_broken_http_gets_a_problem(deployment: Deployment, acme: Partner) -> None:
    deployment.start_web()
    key = Api.of(acme).text
    host = urlsplit(deployment.url).netloc.encode()
    last = b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n"
    # The limits count a whole line, with its name and its end.
    longest = b"Authorization: Bearer "
    longest += b"a" * (8190 - len(longest) - 2)
    for request, status, code in (
        (b"nonsense\r\n\r\n", 400, "bad_request"),
        (b"GET /v2/deeds" + last + longest + b"\r\n\r\n", 401, "invalid_api_key"),
        (b"GET /v2/deeds" + last + longest + b"aaa\r\n\r\n", 431, "headers_too_large"),
        (b"GET /v2/deeds" + last + b"Authorization: " + b"a" * 9000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET /" + b"a" * 5000 + last + b"\r\n", 414, "uri_too_long"),
        (b"GET /" + last + b"Bad Header " + key.encode() + b"\r\n\r\n", 400, "bad_request"),
        (b"POST /v2/deeds" + last + b"Transfer-Encoding: br\r\n\r\n", 400, "bad_request"),
        (b"POST /v2/deeds" + last + b"Content-Length: many\r\n\r\n", 400, "bad_request"),
    ):
        got, problem = raw(deployment, request)
        assert (got, problem["status"], problem["code"]) == (status, status, code)
    assert key not in deployment.children[0].log.read_text()


@pytest.mark.parametrize("size", [10_000_000])
def test_a_body_of_10_mb_is_told_so(deployment: Deployment, acme: Partner, size: int) -> None:
    """The client sends all of it before it reads; it must not find the connection cut."""
    deployment.start_web()
    headers = {"Authorization": f"Bearer {Api.of(acme).text}", "Content-Type": "application/json"}
    with requests.Session() as session:
        for _ in range(3):
            answer = session.post(f"{deployment.url}/v2/deeds", data=b" " * size, headers=headers, timeout=20)
            assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


def test_an_insecure_production_does_not_start(deployment: Deployment) -> None:
    deployment.env |= {"ENVIRONMENT": "production", "DEBUG": "true"}
    for name, arguments in (
        ("web", ("-m", "gunicorn", "-c", "python:partner_api.gunicorn_conf", "partner_api.wsgi:application")),
        ("worker", ("-m", "celery", "-A", "partner_api", "worker")),
    ):
        child = deployment.start(name, *arguments)
        assert child.process.wait(30) != 0
        said = child.log.read_text()
        assert "refusing to start" in said
        for code in ("partner_api.E001", "partner_api.E004", "partner_api.E006"):
            assert code in said


def test_web_processes_can_keep_to_a_core_each(deployment: Deployment) -> None:
    deployment.start_web(WEB_PINNED="true", WEB_WORKERS="2")
    web = deployment.children[-1]

    def cores() -> list[list[int]]:
        return [worker.cpu_affinity() for worker in psutil.Process(web.pid).children()]

    # The second may still be starting.
    web.wait_until(lambda: [len(own) for own in cores()] == [1, 1], seconds=20)
    assert len({core for own in cores() for core in own}) == min(2, len(os.sched_getaffinity(0)))
