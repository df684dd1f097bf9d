"""The request log against real processes: gunicorn, killed and stopped."""

import os
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import requests

from billing.models import ApiUsage, UsageDaily
from keys.models import Partner
from partner_api.local.ports import free_port
from partner_api.local.processes import POLL_SECONDS
from tests.api import Api
from tests.e2e.conftest import Deployment, deployment  # noqa: F401 - a fixture

PATIENCE_SECONDS = 20.0
_pause = threading.Event()


def _wait_for(rows: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while ApiUsage.objects.count() < rows:
        assert time.monotonic() < deadline, f"{ApiUsage.objects.count()} of {rows} rows"
        _pause.wait(POLL_SECONDS)


def _workers(master: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]


def _get(running: Deployment, api: Api, times: int) -> None:
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {api.text}"
        for _ in range(times):
            assert session.get(f"{running.url}/v2/deeds", timeout=10).status_code == 200


def test_a_killed_worker_loses_no_row_of_an_answer(deployment: Deployment, acme: Partner) -> None:  # noqa: F811 - the fixture
    # So long a pause that the worker is killed before it has stored anything.
    deployment.start_web(USAGE_DRAIN_SECONDS="3600", WEB_WORKERS="1")
    web = deployment.children[-1]
    _get(deployment, Api.of(acme), 40)
    [worker] = _workers(web.pid)
    os.kill(worker, signal.SIGKILL)
    assert ApiUsage.objects.count() == 0
    web.stop(seconds=8)
    # Another process takes up what was left, with no request to wake it.
    deployment.start_web(USAGE_DRAIN_SECONDS="0.1")
    _wait_for(40)
    assert ApiUsage.objects.count() == 40
    assert UsageDaily.objects.get(level=7).requests == 40


def test_a_worker_that_is_stopped_leaves_nothing_behind(deployment: Deployment, acme: Partner) -> None:  # noqa: F811 - the fixture
    deployment.start_web(USAGE_DRAIN_SECONDS="3600", WEB_WORKERS="2")
    _get(deployment, Api.of(acme), 10)
    deployment.children[-1].stop(seconds=10)
    assert ApiUsage.objects.count() == 10
    assert list((deployment.folder / "spool").iterdir()) == []


def test_while_postgres_is_away_requests_are_logged_all_the_same(
    deployment: Deployment,  # noqa: F811 - the fixture
    acme: Partner,
) -> None:
    way = _Way(deployment.env["DATABASE_URL"])
    deployment.env["DATABASE_URL"] = way.url
    deployment.start_web(
        USAGE_DRAIN_SECONDS="0.1", WEB_WORKERS="1", DATABASE_POOL_TIMEOUT_SECONDS="0.3", LOG_LEVEL="WARNING"
    )
    api = Api.of(acme)
    try:
        _get(deployment, api, 3)
        _wait_for(3)
        way.close()
        headers = {"Authorization": f"Bearer {api.text}"}
        answers = [requests.get(f"{deployment.url}/v2/deeds", headers=headers, timeout=20) for _ in range(3)]
        assert {answer.status_code for answer in answers} == {503}
        assert ApiUsage.objects.count() == 3
        assert list((deployment.folder / "spool").iterdir()) != []
        way.open()
        _wait_for(6)
    finally:
        way.close()
    failed = ApiUsage.objects.filter(status=503)
    assert {row.error_code for row in failed} == {"database_unavailable"}
    assert {row.request_id for row in failed} == {answer.headers["X-Request-ID"] for answer in answers}


def test_a_client_that_goes_away_is_still_logged(deployment: Deployment, acme: Partner) -> None:  # noqa: F811 - the fixture
    deployment.start_web(USAGE_DRAIN_SECONDS="0.1", WEB_WORKERS="1")
    api = Api.of(acme)
    host, port = deployment.env["WEB_BIND"].split(":")
    # It announces a body, and leaves in the middle of it.
    with socket.create_connection((host, int(port)), timeout=5) as client:
        client.sendall(
            b"POST /v2/deeds HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer " + api.text.encode() + b"\r\nContent-Length: 5000\r\n\r\n{"
        )
    # It asks, and leaves before it has the answer.
    with socket.create_connection((host, int(port)), timeout=5) as client:
        client.sendall(
            b"GET /v2/deeds HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer "
            + api.text.encode()
            + b"\r\n\r\n"
        )
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    _wait_for(2)
    rows = {row.method: row for row in ApiUsage.objects.all()}
    assert (rows["POST"].status, rows["POST"].error_code, rows["POST"].bytes_in) == (
        400,
        "malformed_json",
        5000,
    )
    assert rows["GET"].status == 200
    assert {row.key_id for row in rows.values()} == {api.key.pk}


class _Way:
    """A way to Postgres that can be closed and opened again. `url` leads over it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._there = (parts.hostname or "", parts.port or 5432)
        self._port = free_port()
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self.url = url.replace(f":{parts.port}/", f":{self._port}/")
        self.open()

    def open(self) -> None:
        listener = socket.create_server(("127.0.0.1", self._port))
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def close(self) -> None:
        for one in [*self._open, *([self._listener] if self._listener else [])]:
            # Waking who waits in it; a socket that its peer has closed can't be shut down again.
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()
        self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                here, _ = listener.accept()
            except OSError:
                return
            there = socket.create_connection(self._there)
            self._open += [here, there]
            for one, other in ((here, there), (there, here)):
                threading.Thread(target=_carry, args=(one, other), daemon=True).start()


def _carry(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
