"""Clients that send a part of a request, or do not take its answer: nobody else waits for them."""

import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
from gunicorn.workers import gthread

from partner_api import gunicorn_conf
from partner_api.http import arriving
from partner_api.http import worker as worker_module
from partner_api.http.worker import ProblemWorker
from tests.http.gunicorn_worker import LARGE, Client, running, stopped_worker, worker  # noqa: F401 - a fixture
from tests.http.test_turns import until

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"
Clients = Callable[[], Client]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arriving, "PATIENCE_SECONDS", 0.1)


@pytest.fixture
def clients(worker: ProblemWorker) -> Iterator[Clients]:  # noqa: F811 - a fixture
    made: list[Client] = []

    def client() -> Client:
        made.append(Client(worker))
        return made[-1]

    yield client
    for one in made:
        one.close()


PARTS: dict[str, tuple[bytes, bytes, str]] = {
    "half a line": (b"GET / HT", b"TP/1.1\r\nHost: a\r\n\r\n", ""),
    "half a head": (b"GET / HTTP/1.1\r\nHost: a\r\n", b"\r\n", ""),
    "half an end": (b"GET / HTTP/1.1\r\nHost: a\r\n\r", b"\n", ""),
    "an empty line before": (b"\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", ""),
    "no body": (HEAD + b"Content-Length: 4\r\n\r\n", b"body", "body"),
    "half a body": (HEAD + b"content-LENGTH:4\r\n\r\nbo", b"dy", "body"),
}


@pytest.mark.parametrize(("part", "rest", "body"), PARTS.values(), ids=PARTS)
def test_a_part_of_a_request_holds_no_thread(clients: Clients, part: bytes, rest: bytes, body: str) -> None:
    slow = [clients() for _ in range(4)]
    slow[0].send("/")
    assert slow[0].answer() == "HTTP/1.1 200 OK"
    for client in slow:
        client.say(part)
    quick = clients()
    quick.send("/")
    assert quick.answer() == "HTTP/1.1 200 OK"
    for client in slow:
        client.say(rest)
        assert f"X-Read: {body}\r\n" in client.head()


def test_a_request_in_single_bytes_is_one(clients: Clients) -> None:
    client = clients()
    for byte in HEAD + b"Content-Length: 2\r\n\r\nab":
        client.say(bytes([byte]))
    assert "X-Read: ab\r\n" in client.head()


def test_requests_sent_ahead_are_all_answered(clients: Clients) -> None:
    client = clients()
    client.say(b"".join(HEAD + b"Content-Length: 1\r\n\r\n%d" % number for number in range(5)) + b"GET /")
    for number in range(5):
        answer = b""
        while not answer.endswith(b"\r\n\r\nok"):
            answer += client._socket.recv(1)
        assert f"X-Read: {number}\r\n".encode() in answer
    client.say(b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.answer() == "HTTP/1.1 200 OK"


def test_a_client_that_sends_no_more_still_gets_its_answer(clients: Clients) -> None:
    whole, part = clients(), clients()
    whole.say(HEAD + b"Content-Length: 2\r\n\r\nab")
    whole.ends()
    assert b"X-Read: ab\r\n" in whole.rest()
    part.say(HEAD)
    part.ends()
    assert part.is_closed()


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\nHost: a\n\n", b"GET /" + b"a" * 70_000, b"X\r\n\r\n"])
def test_what_is_no_http_is_refused_without_delay(clients: Clients, data: bytes) -> None:
    client = clients()
    client.say(data)
    assert b"application/problem+json" in client.rest()


def test_a_body_is_asked_for(clients: Clients) -> None:
    client = clients()
    client.say(HEAD + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert client._socket.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.say(b"ab")
    assert "X-Read: ab\r\n" in client.head()


@pytest.mark.parametrize("part", [b"GET / HT", HEAD + b"Content-Length: 4\r\n\r\nbo"])
def test_a_part_that_stays_one_is_told_so(short: None, clients: Clients, part: bytes) -> None:
    client = clients()
    client.say(part)
    answer = client.rest()
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b'"code": "request_timeout"' in answer


@pytest.mark.parametrize("what", ["Transfer-Encoding: chunked", "Content-Length: 999999"])
def test_a_thread_does_not_wait_for_a_body_for_long(short: None, clients: Clients, what: str) -> None:
    client = clients()
    client.say(HEAD + what.encode() + b"\r\n\r\n4\r\nbo")
    answer = client.rest()
    assert b"X-Read: late\r\n" in answer, "the application is told"
    assert b"408" not in answer, "nothing is written after its answer"


def test_a_body_may_not_come_in_drops_for_ever(monkeypatch: pytest.MonkeyPatch, clients: Clients) -> None:
    monkeypatch.setattr(arriving, "_BODY_SECONDS", 0)
    client = clients()
    client.say(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    assert b"X-Read: late\r\n" in client.rest()


def test_the_rest_of_a_body_that_nobody_reads_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, clients: Clients
) -> None:
    monkeypatch.setattr(worker_module, "_UNREAD_SECONDS", 0.01)
    client = clients()
    client.say(HEAD.replace(b"/", b"/unread", 1) + b"Content-Length: 999999\r\n\r\nab")
    answer = client.rest()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nok"), "nothing is written after it"


def test_an_answer_that_is_not_taken_frees_its_thread(
    short: None,
    clients: Clients,
    worker: ProblemWorker,  # noqa: F811 - a fixture
) -> None:
    greedy = [clients() for _ in range(4)]
    for client in greedy:
        client.send("/large")
    until(lambda: worker._with_the_pool == 0)
    quick = clients()
    quick.send("/")
    assert quick.answer() == "HTTP/1.1 200 OK"
    assert len(greedy[0].rest()) < LARGE


def test_a_client_that_does_not_close_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch, clients: Clients
) -> None:
    monkeypatch.setattr(worker_module, "_LEAVES_SECONDS", 60.0)
    slow = [clients() for _ in range(4)]
    for client in slow:
        client.say(b"X\r\n\r\n")
        assert client.rest().startswith(b"HTTP/1.1 400 ")
    quick = clients()
    quick.send("/")
    assert quick.answer() == "HTTP/1.1 200 OK"


def test_a_client_that_does_not_close_is_left(
    monkeypatch: pytest.MonkeyPatch,
    clients: Clients,
    worker: ProblemWorker,  # noqa: F811 - a fixture
) -> None:
    monkeypatch.setattr(worker_module, "_LEAVES_SECONDS", 0.0)
    client = clients()
    client.say(b"X\r\n\r\n")
    assert client.rest().startswith(b"HTTP/1.1 400 ")
    until(lambda: worker.nr_conns == 0)


def test_where_no_place_is_left_the_first_who_said_nothing_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_SPEAKS_SECONDS", 0.0)
    with stopped_worker(worker_connections=4) as made, running(made), ExitStack() as stack:
        silent = [stack.enter_context(closing(Client(made))) for _ in range(3)]
        silent[1].say(b"GET")
        until(lambda: len(made._arriving) == 1)
        for _ in range(2):
            client = stack.enter_context(closing(Client(made)))
            client.send("/")
            assert client.answer() == "HTTP/1.1 200 OK"
        assert silent[0].is_closed()
        assert silent[2].is_closed()
        silent[1].say(b" / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert silent[1].answer() == "HTTP/1.1 200 OK", "it came later than the others that said nothing"


def test_who_has_just_connected_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_SPEAKS_SECONDS", 60.0)
    with stopped_worker(worker_connections=2) as made, running(made), ExitStack() as stack:
        slow, client, other = (stack.enter_context(closing(Client(made))) for _ in range(3))
        slow.send("/slow")
        until(lambda: made._with_the_pool == 1 and len(made.pending_conns) == 1)
        client.send("/")
        assert client.answer() == "HTTP/1.1 200 OK"
        client.close()
        other.send("/")
        assert other.answer() == "HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    ("files", "connections"),
    [(resource.RLIM_INFINITY, 1000), (1_048_576, 1000), (1024, 896), (256, 128), (64, 48)],
)
def test_a_process_takes_no_more_connections_than_it_may_open_files(files: int, connections: int) -> None:
    assert gunicorn_conf.connections_within(files) == connections


def test_who_came_before_a_stop_is_answered_and_who_comes_after_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gthread, "STOP_KEEPALIVE_LINGER", 0.1)
    monkeypatch.setattr(worker_module, "_LEAVES_SECONDS", 0.1)
    with stopped_worker() as made, ExitStack() as stack:
        client, silent, slow = (stack.enter_context(closing(Client(made))) for _ in range(3))
        client.send("/")
        slow.say(b"GET /")
        made.alive = False
        with running(made):
            assert b"Connection: close" in client.rest()
            made.set_accept_enabled(False)
            with pytest.raises(ConnectionRefusedError):
                Client(made)
            assert silent.is_closed()
            assert slow.rest().startswith(b"HTTP/1.1 408 ")
