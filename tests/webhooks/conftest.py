"""Receivers on real HTTP, endpoints that lead there, sources, and no workers but the test's own calls."""

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from keys.models import Partner
from webhooks import hints, outbox, signing
from webhooks.event_types import KeyNews
from webhooks.models import Delivery, Endpoint, Event, Source

NOW = dt.datetime(2026, 11, 24, 8, tzinfo=dt.UTC)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
Register = Callable[..., Endpoint]
Sources = Callable[..., Source]
Tell = Callable[[], Event]


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """What an endpoint's owner runs. `answer` is a status, or writes the answer itself."""

    url: str = ""
    answer: int | Callable[[Any], None] = 204
    received: list[Received] = field(default_factory=list)


class _Server(ThreadingHTTPServer):
    receiver: Receiver
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """We hang up on those that take too long; that is what is tested."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        receiver = self.server.receiver
        body = self.rfile.read(int(self.headers["Content-Length"]))
        receiver.received.append(Received(self.path, dict(self.headers.items()), body))
        if callable(receiver.answer):
            receiver.answer(self)
            return
        self.send_response(receiver.answer)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def receivers(settings: Any) -> Iterator[Callable[[], Receiver]]:
    """Starts receivers; http to this machine is allowed as long as they run."""
    settings.WEBHOOKS_ALLOW_HTTP = True
    settings.WEBHOOKS_ALLOW_PRIVATE_ADDRESSES = ["127.0.0.1/32"]
    running: list[tuple[_Server, threading.Thread]] = []

    def start() -> Receiver:
        server = _Server(("127.0.0.1", 0), _Handler)
        server.receiver = Receiver(f"http://127.0.0.1:{server.server_port}/hooks")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        running.append((server, thread))
        return server.receiver

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def receiver(receivers: Callable[[], Receiver]) -> Receiver:
    return receivers()


@pytest.fixture
def register(acme: Partner) -> Callable[..., Endpoint]:
    """An endpoint of Acme's, as if it had proven itself."""

    def make(url: str, *types: str, **fields: Any) -> Endpoint:
        now = timezone.now()
        endpoint = Endpoint(
            **{"partner": acme, "livemode": True, "last_success_at": now} | fields,
            url=url,
            event_types=list(types) or ["*"],
        )
        endpoint.give_secret(SECRET, now=now, overlap=dt.timedelta(0))
        endpoint.save()
        return endpoint

    return make


@pytest.fixture
def tell(acme: Partner) -> Tell:
    """One event for all endpoints of Acme's."""

    def make() -> Event:
        news = KeyNews(key=acme.pk, prefix="dp_live_x", expires_at=None)
        return outbox.publish("key.revoked", news, partner=acme, livemode=True)

    return make


@pytest.fixture
def hinted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The messages that would have gone to the workers."""
    sent: list[str] = []
    monkeypatch.setattr(hints, "send", sent.append)
    return sent


@pytest.fixture
def clock() -> Any:
    """It is NOW until a test moves it on."""
    with time_machine.travel(NOW, tick=False) as clock:
        yield clock


@pytest.fixture
def source(acme: Partner) -> Callable[..., Source]:
    """A source of Acme's. Its secret is `secret` unless told otherwise."""

    def make(system: str = "softpro", *, secret: str = "secret", **fields: Any) -> Source:
        made = Source(**{"system": system, "partner": acme} | fields)
        made.give_secret(secret, now=timezone.now(), overlap=dt.timedelta(0))
        made.save()
        return made

    return make


def verified(received: Received, secret: str = SECRET) -> None:
    signing.verify(secret, received.headers, received.body)


def only() -> Delivery:
    return Delivery.objects.get()
