"""What reaches gunicorn and not Django: broken HTTP, headers and bodies that are too large."""

import json
import socket
from urllib.parse import urlsplit

import pytest
import requests

from keys.models import Partner
from tests.api import Api
from tests.e2e.conftest import Deployment


def raw(deployment: Deployment, request: bytes) -> tuple[int, dict[str, object]]:
    parts = urlsplit(deployment.url)
    assert parts.hostname is not None
    with socket.create_connection((parts.hostname, parts.port or 80), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    return int(head.split()[1]), json.loads(body)


def test_broken_http_gets_a_problem(deployment: Deployment, acme: Partner) -> None:
    deployment.start_web()
    key = Api.of(acme).text
    for request, status in (
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nBad Header " + key.encode() + b"\r\n\r\n", 400),
    ):
        got, problem = raw(deployment, request)
        assert got == status == problem["status"]
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
