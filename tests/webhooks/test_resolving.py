"""A resolver that hangs: a message to such a name fails in time, and no other waits for it."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.api import Api
from tests.webhooks.conftest import Receiver, Register, Tell
from webhooks import addresses, delivery, outbound_http, resolving
from webhooks.models import Attempt, Delivery
from webhooks.outbound_http import NoAnswer
from webhooks.resolving import MAX_OF_ONE_NAME

LIMIT = 1.0


@pytest.fixture
def released(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Names that begin with `hanging` are resolved, to this machine, once it is set."""
    settings.WEBHOOKS_TIMEOUT_SECONDS = LIMIT
    event = threading.Event()
    real = socket.getaddrinfo

    def resolve(host: str, *args: Any, **options: Any) -> Any:
        if host.startswith("hanging"):
            event.wait(60)
            return real("127.0.0.1", *args, **options)
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    yield event
    event.set()
    _let_look_ups_end()


def test_it_works() -> None:
    assert resolving.look_up("127.0.0.1", 443, seconds=5) == ["127.0.0.1"]
    assert resolving.look_up("::1", 443, seconds=5) == ["::1"]
    with pytest.raises(UnicodeError):
        resolving.look_up("a" * 64 + ".example.com", 443, seconds=5)


def test_a_message_to_a_name_that_hangs_fails_in_time(released: threading.Event) -> None:
    begun = time.monotonic()
    with pytest.raises(NoAnswer, match="dns_timeout"):
        _post("https://hanging.example.com/")
    assert LIMIT <= time.monotonic() - begun < LIMIT + 0.5


def test_the_look_up_counts_towards_the_limit_of_the_whole(
    receiver: Receiver, released: threading.Event
) -> None:
    """The name takes half of the time, and the receiver would take more than the other half."""
    hold = threading.Event()

    def stay_silent(handler: Any) -> None:
        hold.wait(10)

    receiver.answer = stay_silent
    threading.Timer(LIMIT / 2, released.set).start()
    begun = time.monotonic()
    try:
        with pytest.raises(NoAnswer, match=r"^timeout$"):
            _post(f"http://hanging.example.com:{_port(receiver)}/")
        assert time.monotonic() - begun < LIMIT + 0.5
    finally:
        hold.set()
    assert len(receiver.received) == 1


def test_a_name_that_hangs_leaves_few_threads_and_takes_no_place_from_another(
    receiver: Receiver, released: threading.Event
) -> None:
    url = f"http://hanging.example.com:{_port(receiver)}/"
    with ThreadPoolExecutor(3 * MAX_OF_ONE_NAME) as posts:
        codes = list(posts.map(_code, [url] * 3 * MAX_OF_ONE_NAME))
    assert codes == ["dns_timeout"] * 3 * MAX_OF_ONE_NAME
    assert len(_look_ups()) == MAX_OF_ONE_NAME
    assert _code(receiver.url) == "204"
    # Nothing is remembered of it, once the resolver answers.
    released.set()
    _let_look_ups_end()
    assert _code(url) == "204"


def test_other_deliveries_of_the_worker_do_not_wait(
    receiver: Receiver, released: threading.Event, register: Register, tell: Tell, hinted: list[str]
) -> None:
    hanging = register(f"http://hanging.example.com:{_port(receiver)}/")
    register(receiver.url)
    for _ in range(2):
        tell()
    begun = time.monotonic()
    delivery.pump()
    assert time.monotonic() - begun < 2 * LIMIT + 1
    assert len(receiver.received) == 2
    waiting = Delivery.objects.filter(endpoint=hanging)
    assert {(one.status, one.last_error) for one in waiting} == {("pending", "dns_timeout")}
    assert {one.error for one in Attempt.objects.all()} == {"", "dns_timeout"}


def test_an_endpoint_whose_name_hangs_is_refused_in_time(
    api: Api, released: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "CHECK_SECONDS", 0.2)
    begun = time.monotonic()
    answer = api.post("/v2/webhook-endpoints", {"url": "https://hanging.example.com/", "event_types": ["*"]})
    assert time.monotonic() - begun < 2
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert (error["pointer"], error["code"]) == ("/url", "url_refused")
    assert "was not resolved in time" in error["message"]


def _post(url: str) -> outbound_http.Answer:
    return outbound_http.post(url, b"{}", {"webhook-id": "evt"})


def _code(url: str) -> str:
    try:
        return str(_post(url).status)
    except NoAnswer as reason:
        return reason.code


def _port(receiver: Receiver) -> str:
    return receiver.url.split(":")[2].split("/")[0]


def _look_ups() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "look-up"]


def _let_look_ups_end() -> None:
    for thread in _look_ups():
        thread.join(5)
