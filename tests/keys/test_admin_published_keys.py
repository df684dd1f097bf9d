"""Tokens of the back office that are signed by keys which it publishes (JWKS)."""

import json
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.db import connection

from keys import jwks
from keys.models import Partner
from tests.keys.back_office import SECRET, claims, refused, send, unsigned

pytestmark = pytest.mark.usefixtures("shared_secret")


class Publisher:
    """An identity provider on a port of its own, that publishes `keys`."""

    def __init__(self) -> None:
        self.keys: dict[str, rsa.RSAPrivateKey] = {}
        self.asked = 0
        self.status = "200 OK"
        self.redirect_to = ""
        self.headers: list[tuple[str, str]] = []
        self.others: list[Any] = [{"kty": "EC", "kid": "other"}]
        self.body: bytes | None = None
        # Once set, an answer leaves whole; until then byte by byte.
        self.is_quick = threading.Event()
        self.is_quick.set()
        self.sent = 0

    def add(self, key_id: str) -> None:
        self.keys[key_id] = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def sign(self, key_id: str, named: str | None = None, **changes: Any) -> str:
        headers = {"kid": named or key_id}
        return jwt.encode(claims(**changes), self.keys[key_id], algorithm="RS256", headers=headers)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        self.asked += 1
        moved = [("Location", self.redirect_to)] if self.redirect_to and environ["PATH_INFO"] == "/" else []
        headers = [("Content-Type", "application/json"), *moved, *self.headers]
        start_response("302 Found" if moved else self.status, headers)
        keys = [jwk_of(key.public_key(), key_id) for key_id, key in self.keys.items()]
        body = self.body or json.dumps({"keys": [*self.others, *keys]}).encode()
        return [body] if self.is_quick.is_set() else self._slowly(body)

    def _slowly(self, body: bytes) -> Iterator[bytes]:
        for byte in body:
            yield bytes([byte])
            self.sent += 1
            self.is_quick.wait(0.02)


def jwk_of(key: rsa.RSAPublicKey, key_id: str) -> dict[str, Any]:
    return {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key)), "kid": key_id, "use": "sig"}


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def publisher(settings: Any) -> Iterator[Publisher]:
    app = Publisher()
    app.add("one")
    with make_server("127.0.0.1", 0, app, handler_class=_Quiet) as server:
        settings.ADMIN_JWT_SECRET = ""
        settings.ADMIN_JWKS_URL = f"http://127.0.0.1:{server.server_port}/"
        settings.ADMIN_JWKS_COOLDOWN_SECONDS = 0.0
        jwks.forget()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield app
        finally:
            server.shutdown()
            thread.join()
            jwks.forget()


def test_a_published_key_signs(publisher: Publisher, acme: Partner) -> None:
    for _ in range(3):
        assert send("GET", "/partners", text=publisher.sign("one")).status_code == 200
    assert publisher.asked == 1


def test_a_new_key_is_fetched_and_an_old_one_is_not_good_any_more(publisher: Publisher, db: None) -> None:
    old = publisher.sign("one")
    assert send("GET", "/partners", text=old).status_code == 200
    publisher.add("two")
    del publisher.keys["one"]
    assert send("GET", "/partners", text=publisher.sign("two")).status_code == 200
    assert publisher.asked == 2
    refused(old)


def test_made_up_key_ids_do_not_make_us_ask_each_time(publisher: Publisher, db: None, settings: Any) -> None:
    settings.ADMIN_JWKS_COOLDOWN_SECONDS = 60.0
    for number in range(5):
        refused(publisher.sign("one", named=f"made up {number}"))
    assert publisher.asked == 1
    assert send("GET", "/partners", text=publisher.sign("one")).status_code == 200


def test_a_publisher_that_is_away_does_not_end_known_keys(
    publisher: Publisher, db: None, settings: Any
) -> None:
    assert send("GET", "/partners", text=publisher.sign("one")).status_code == 200
    publisher.status = "500 Broken"
    settings.ADMIN_JWKS_CACHE_SECONDS = 0.0
    assert send("GET", "/partners", text=publisher.sign("one")).status_code == 200
    assert publisher.asked == 2
    settings.ADMIN_JWKS_STALE_SECONDS = 0.0
    answer = send("GET", "/partners", text=publisher.sign("one"))
    assert (answer.status_code, answer.json()["code"]) == (503, "identity_provider_unavailable")
    assert int(answer["Retry-After"]) > 0


@pytest.mark.parametrize(
    "header",
    [("Content-Length", "100000"), ("Content-Encoding", "gzip")],
    ids=["cut off on its way", "not the encoding it claims"],
)
def test_an_answer_that_breaks_while_it_is_read_does_not_end_known_keys(
    publisher: Publisher, db: None, settings: Any, header: tuple[str, str]
) -> None:
    assert send("GET", "/partners", text=publisher.sign("one")).status_code == 200
    publisher.headers = [header]
    settings.ADMIN_JWKS_CACHE_SECONDS = 0.0
    assert send("GET", "/partners", text=publisher.sign("one")).status_code == 200
    assert publisher.asked == 2


@pytest.mark.parametrize(
    "changes",
    [{"n": None}, {"n": 123}, {"n": ""}, {"e": "AQ"}, {"d": "AQAB"}, {"d": "AQAB", "oth": 1}],
    ids=["without n", "n is a number", "empty n", "e is 1", "a private key that fits nothing", "more primes"],
)
def test_what_is_no_key_leaves_the_others_of_the_set_good(
    publisher: Publisher, db: None, changes: dict[str, Any]
) -> None:
    known = jwk_of(publisher.keys["one"].public_key(), "odd")
    publisher.others = [known | changes, "no object at all"]
    assert send("GET", "/partners", text=publisher.sign("one")).status_code == 200
    refused(publisher.sign("one", named="odd"))


def test_a_set_that_is_nested_without_end_does_not_end_known_keys(
    publisher: Publisher, db: None, settings: Any
) -> None:
    assert send("GET", "/partners", text=publisher.sign("one")).status_code == 200
    settings.ADMIN_JWKS_CACHE_SECONDS = 0.0
    publisher.body = b'{"keys": ' + b"[" * 100_000
    assert send("GET", "/partners", text=publisher.sign("one")).status_code == 200
    assert publisher.asked == 2


def test_a_publisher_that_answers_byte_by_byte_holds_nobody_up(
    publisher: Publisher, db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "WHOLE_SECONDS", 0.1)
    publisher.is_quick.clear()
    answer = send("GET", "/partners", text=publisher.sign("one"))
    assert (answer.status_code, answer.json()["code"]) == (503, "identity_provider_unavailable")
    assert 0 < publisher.sent < 50
    publisher.is_quick.set()
    assert send("GET", "/partners", text=publisher.sign("one")).status_code == 200


def test_a_known_key_does_not_wait_for_who_fetches_anew(
    publisher: Publisher, db: None, settings: Any
) -> None:
    assert send("GET", "/partners", text=publisher.sign("one")).status_code == 200
    settings.ADMIN_JWKS_CACHE_SECONDS = 0.0
    publisher.is_quick.clear()

    def ask() -> int:
        try:
            return int(send("GET", "/partners", text=publisher.sign("one")).status_code)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask)
        try:
            while publisher.asked < 2:
                publisher.is_quick.wait(0.01)
            assert send("GET", "/partners", text=publisher.sign("one")).status_code == 200
            assert not first.done()
        finally:
            publisher.is_quick.set()
        assert first.result() == 200


def test_a_redirect_is_not_followed(publisher: Publisher, db: None, settings: Any) -> None:
    publisher.redirect_to = settings.ADMIN_JWKS_URL + "elsewhere"
    assert send("GET", "/partners", text=publisher.sign("one")).status_code == 503
    assert publisher.asked == 1


def test_a_secret_made_of_the_public_key_signs_nothing(publisher: Publisher, db: None) -> None:
    pem = (
        publisher.keys["one"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    header, body = {"alg": "HS256", "typ": "JWT", "kid": "one"}, claims()
    signed = unsigned(header, body)[:-1]
    forged = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(signed.encode(), pem)
    refused(f"{signed}.{urlsafe_b64encode(forged).rstrip(b'=').decode()}")


def test_with_published_keys_the_rest_is_refused_too(publisher: Publisher, db: None) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    refused(jwt.encode(claims(), other, algorithm="RS256", headers={"kid": "one"}))
    refused(jwt.encode(claims(), other, algorithm="RS256"))
    refused(jwt.encode(claims(), SECRET, algorithm="HS256", headers={"kid": "one"}))
    refused(unsigned({"alg": "none", "kid": "one"}, claims()))
    refused(publisher.sign("one", aud="other"))
    refused(publisher.sign("one", exp=int(time.time()) - 31))
    refused(jwt.encode(claims(), publisher.keys["one"], algorithm="RS512", headers={"kid": "one"}))
