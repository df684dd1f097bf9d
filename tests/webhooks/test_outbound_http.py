"""One POST, whatever answers: nothing takes longer than the limit, and nothing leads elsewhere."""

import datetime as dt
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from partner_api.local.ports import free_port
from tests.webhooks.conftest import Receiver
from webhooks import outbound_http
from webhooks.outbound_http import Answer, NoAnswer

LIMIT = 0.6


@pytest.fixture(autouse=True)
def _impatient(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.WEBHOOKS_TIMEOUT_SECONDS = LIMIT
    monkeypatch.setattr(outbound_http, "BODY_SECONDS", 0.2)


@pytest.fixture
def raw(settings: Any) -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """Serves each connection with a function, on a socket; gives the URL."""
    settings.WEBHOOKS_ALLOW_HTTP = True
    settings.WEBHOOKS_ALLOW_PRIVATE_ADDRESSES = ["127.0.0.1/32"]
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve(listener: socket.socket, answer: Callable[[socket.socket], None]) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.recv(65536)
                    answer(connection)
                except OSError:
                    pass  # the client hung up, as it should

    def start(answer: Callable[[socket.socket], None]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threads.append(threading.Thread(target=serve, args=(listener, answer), daemon=True))
        threads[-1].start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/hooks"

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join(5)


def _endless(begin: bytes, part: bytes, pause: float = 0.0) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(begin)
        ends_at = time.monotonic() + 5
        waiting = threading.Event()
        while time.monotonic() < ends_at:
            connection.sendall(part)
            waiting.wait(pause)

    return answer


def _post(url: str) -> Answer:
    return outbound_http.post(url, b'{"a":1}', {"webhook-id": "evt"})


@contextmanager
def _within_the_limit() -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < LIMIT + 0.5


def test_it_works(receiver: Receiver) -> None:
    answer = _post(receiver.url + "?x=1")
    assert (answer.status, answer.body) == (204, b"ok")
    [received] = receiver.received
    assert (received.path, received.body) == ("/hooks?x=1", b'{"a":1}')
    assert received.headers["webhook-id"] == "evt"
    assert received.headers["Host"] == receiver.url.split("/")[2]


def test_a_redirect_is_not_followed(receiver: Receiver, receivers: Callable[[], Receiver]) -> None:
    inside = receivers()

    def redirect(handler: Any) -> None:
        handler.send_response(302)
        handler.send_header("Location", "http://169.254.169.254/latest/meta-data/")
        handler.send_header("Refresh", f"0; url={inside.url}")
        handler.end_headers()

    receiver.answer = redirect
    assert _post(receiver.url).status == 302
    assert len(receiver.received) == 1
    assert inside.received == []


def test_a_name_is_looked_up_once_so_it_can_not_change_meanwhile(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """The first look-up passes; a second one would lead to another address."""
    real, answers = socket.getaddrinfo, ["127.0.0.1", "127.0.0.66"]
    asked: list[str] = []

    def resolve(host: str, port: int, *args: Any, **options: Any) -> Any:
        if host == "rebind.example.com":
            asked.append(host)
            return real(answers[min(len(asked), 2) - 1], port, *args, **options)
        return real(host, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    port = receiver.url.split(":")[2].split("/")[0]
    assert _post(f"http://rebind.example.com:{port}/").status == 204
    assert len(asked) == 1
    assert receiver.received[0].headers["Host"] == f"rebind.example.com:{port}"
    # Since the endpoint was made the name was moved inside: each send looks again.
    with pytest.raises(NoAnswer, match="address_refused"):
        _post(f"http://rebind.example.com:{port}/")
    assert len(receiver.received) == 1


def test_proxies_of_the_environment_are_not_used(
    receiver: Receiver, receivers: Callable[[], Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = receivers()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    assert _post(receiver.url).status == 204
    assert proxy.received == []


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (lambda connection: None, "connection_closed"),
        (lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "answer_invalid"),
        (lambda connection: connection.sendall(b"HTTP/1.1 2000 OK\r\n\r\n"), "answer_invalid"),
        (lambda connection: connection.sendall(b"HTTP/1.1 20"), "answer_invalid"),
        (lambda connection: connection.recv(1), "timeout"),
        (_endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 0.05), "timeout"),
        (_endless(b"HTTP/1.1 200 OK\r\n", b"X-Filler: " + b"a" * 5000 + b"\r\n"), "headers_too_large"),
        (_endless(b"HTTP/1.1 200 OK\r\nX: ", b"a" * 65536), "headers_too_large"),
        (_endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.05), "timeout"),
        (_endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100), "headers_too_large"),
    ],
    ids=[
        "hangs up",
        "ssh",
        "odd",
        "cut",
        "silent",
        "slowloris",
        "headers",
        "a GB header",
        "continue",
        "a flood",
    ],
)
def test_what_is_no_answer_in_time_has_a_name(
    raw: Callable[[Callable[[socket.socket], None]], str],
    answer: Callable[[socket.socket], None],
    code: str,
) -> None:
    url = raw(answer)
    with _within_the_limit(), pytest.raises(NoAnswer, match=code):
        _post(url)


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (_endless(b"HTTP/1.1 200 OK\r\n\r\n", b"a" * 65536), 1024),
        (_endless(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"a" * 65536), 1024),
        (_endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"a" * 4096), 1000),
        (_endless(b"HTTP/1.1 200 OK\r\n\r\n", b"a", 0.05), 1),
    ],
    ids=["endless", "announced", "chunked", "by drops"],
)
def test_of_an_endless_body_a_kilobyte_is_kept(
    raw: Callable[[Callable[[socket.socket], None]], str], answer: Callable[[socket.socket], None], kept: int
) -> None:
    url = raw(answer)
    with _within_the_limit():
        found = _post(url)
    assert found.status == 200
    assert kept <= len(found.body) <= 1024


def test_chunks_are_put_together(raw: Callable[[Callable[[socket.socket], None]], str]) -> None:
    text = b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    assert _post(raw(lambda connection: connection.sendall(text))) == Answer(500, "", b"abcde")


def test_nobody_listens() -> None:
    with pytest.raises(NoAnswer, match="address_refused"):
        _post("https://127.0.0.1/")


def test_a_closed_port_is_told_from_a_refused_address(receivers: Callable[[], Receiver]) -> None:
    with pytest.raises(NoAnswer, match="connection_refused"):
        _post(f"http://127.0.0.1:{free_port()}/")


@pytest.fixture
def tls(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An https server whose certificate is for hooks.example.com, by an authority that is trusted."""
    settings.WEBHOOKS_ALLOW_PRIVATE_ADDRESSES = ["127.0.0.1/32"]
    settings.WEBHOOKS_CA_BUNDLE = str(tmp_path / "cert.pem")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hooks.example.com")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.example.com")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    asked: list[str | None] = []
    context.sni_callback = lambda _socket, server_name, _context: asked.append(server_name)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    real = socket.getaddrinfo

    def resolve(host: str, *args: Any, **options: Any) -> Any:
        return real("127.0.0.1" if host.endswith("example.com") else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(connection, server_side=True) as secure:
                    secure.recv(65536)
                    secure.sendall(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")
            except OSError:
                pass  # the client did not like the certificate

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield port, asked
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def test_tls_asks_for_the_name_and_checks_it(tls: Any) -> None:
    port, asked = tls
    assert _post(f"https://hooks.example.com:{port}/").status == 204
    assert asked == ["hooks.example.com"]
    with pytest.raises(NoAnswer, match="certificate_invalid"):
        _post(f"https://other.example.com:{port}/")


def test_an_unknown_authority_is_refused(tls: Any, settings: Any) -> None:
    settings.WEBHOOKS_CA_BUNDLE = ""
    with pytest.raises(NoAnswer, match="certificate_invalid"):
        _post(f"https://hooks.example.com:{tls[0]}/")


def test_plain_http_where_tls_is_expected_fails(receiver: Receiver) -> None:
    with pytest.raises(NoAnswer, match="tls_failed"):
        _post(receiver.url.replace("http://", "https://"))
    assert receiver.received == []
