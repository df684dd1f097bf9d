"""Bodies of which no length was announced: they mean what they would mean otherwise."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from django.utils import timezone

from keys.models import ApiKey, Partner
from tests.api import Api
from tests.e2e.conftest import Deployment, deployed
from tests.e2e.test_wire import raw
from tests.webhooks.conftest import Register, Sources, register, source  # noqa: F401 - fixtures
from tests.webhooks.inbound_calls import FIRST, sign
from webhooks.models import Endpoint, InboundEvent


def chunks(body: bytes, size: int = 700) -> Iterator[bytes]:
    """What `requests` sends in chunks: it asks for no length."""
    for start in range(0, len(body), size):
        yield body[start : start + size]


class Wire:
    def __init__(self, deployment: Deployment, partner: Partner) -> None:
        self.url, self.api, self.session = deployment.url, Api.of(partner), requests.Session()
        self.session.headers["Authorization"] = f"Bearer {self.api.text}"

    def send(self, method: str, path: str, body: bytes, **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.session.request(
            method,
            f"{self.url}{path}",
            data=chunks(body),
            headers={"Content-Type": "application/json", **named},
            timeout=20,
        )


@pytest.fixture(scope="module")
def web(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(tmp_path_factory.mktemp("web")) as running:
        running.start_web()
        yield running


@pytest.fixture
def wire(web: Deployment, transactional_db: None, acme: Partner) -> Iterator[Wire]:
    sent = Wire(web, acme)
    yield sent
    sent.session.close()


def test_json_in_chunks_is_read(wire: Wire, register: Register) -> None:  # noqa: F811 - a fixture
    endpoint = register("https://hooks.example.com/")
    answer = wire.send("PATCH", f"/v2/webhook-endpoints/{endpoint.pk}", b'{"enabled": false}')
    assert (answer.status_code, answer.json()["enabled"]) == (200, False)
    assert not Endpoint.objects.get().enabled
    # The connection goes on with the next request, also after nothing was sent in chunks.
    assert wire.send("POST", f"/v2/webhook-endpoints/{endpoint.pk}/rotate-secret", b"").status_code == 200
    broken = wire.send("PATCH", f"/v2/webhook-endpoints/{endpoint.pk}", b'{"enabled": tru')
    assert (broken.status_code, broken.json()["code"]) == (400, "malformed_json")


def test_a_leaked_key_that_is_rotated_in_chunks_ends_at_once(wire: Wire) -> None:
    answer = wire.send("POST", f"/v2/keys/{wire.api.key.pk}/rotate", b'{"overlap_seconds": 0}')
    assert answer.status_code == 201, answer.text
    expires_at = ApiKey.objects.get(pk=wire.api.key.pk).expires_at
    assert expires_at is not None
    assert expires_at <= timezone.now()


def test_an_inbound_order_in_chunks_is_signed_like_any_other(wire: Wire, source: Sources) -> None:  # noqa: F811
    source()
    body = json.dumps(FIRST).encode()
    signed = sign(body, at=timezone.now())
    first = wire.send("POST", "/v1/webhooks/softpro", body, **signed)
    assert first.status_code == 202, first.text
    again = requests.post(f"{wire.url}/v1/webhooks/softpro", data=body, headers=signed, timeout=20)
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    assert bytes(InboundEvent.objects.get().body or b"") == body


def test_too_much_in_chunks_is_told_so(wire: Wire, source: Sources) -> None:  # noqa: F811
    source()
    for path in ("/v2/deeds", "/v1/webhooks/softpro"):
        answer = wire.send("POST", path, b" " * (1024 * 1024 + 1))
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert wire.send("POST", "/v2/deeds", b" " * 1024 * 1024).json()["code"] == "malformed_json"


def test_an_idempotency_key_is_of_what_came_in_chunks(wire: Wire, register: Register) -> None:  # noqa: F811
    path = f"/v2/webhook-endpoints/{register('https://hooks.example.com/').pk}/replay"
    body = b'{"since": "2026-11-24T00:00:00Z"}'
    first = wire.send("POST", path, body, Idempotency_Key="one")
    assert first.status_code == 202, first.text
    again = wire.send("POST", path, body.replace(b" ", b""), Idempotency_Key="one")
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (202, "true")
    other = wire.send("POST", path, body.replace(b"24", b"23"), Idempotency_Key="one")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


def test_chunks_that_are_none_get_a_problem(wire: Wire, web: Deployment) -> None:
    head = (
        b"POST /v2/deeds HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Type: application/json\r\nAuthorization: Bearer " + wire.api.text.encode() + b"\r\n\r\n"
    )
    host = web.url.removeprefix("http://").encode()
    for body in (
        b"xyz\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}nonsense0\r\n\r\n",
        b"2\r\n{}\r\n0\r\nbad trailer\r\n\r\n",
    ):
        got, problem = raw(web, head.replace(b"Host: a", b"Host: " + host) + body)
        assert (got, problem["code"]) == (400, "bad_request")


def test_a_form_of_the_admin_in_chunks_is_read(wire: Wire) -> None:
    url = f"{wire.url}/admin/login/"
    with requests.Session() as browser:
        page = browser.get(url, timeout=20).text
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
        assert token is not None
        form = f"csrfmiddlewaretoken={token[1]}&username=nobody&password=wrong".encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Referer": url}
        answer = browser.post(url, data=chunks(form, 20), headers=headers, timeout=20)
        # Not 403: the token was read, and then the name and password with it.
        assert answer.status_code == 200, answer.text[:500]
        assert "nobody" in answer.text
