"""Signatures by Standard Webhooks."""

import base64
import datetime as dt
import hashlib
import hmac

import pytest
import time_machine

from webhooks import signing
from webhooks.signing import BadSignature

# The specification's own example: standard-webhooks/spec, "Signature scheme" and its reference tests.
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
AT = dt.datetime.fromtimestamp(1614265330, tz=dt.UTC)
BODY = b'{"test": 2432232314}'
KEY = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def _headers(**changes: str) -> dict[str, str]:
    headers = {"webhook-id": ID, "webhook-timestamp": "1614265330", "webhook-signature": SIGNATURE}
    return headers | {name.replace("_", "-"): value for name, value in changes.items()}


def test_it_works() -> None:
    assert signing.headers_for(ID, AT, BODY, [f"whsec_{KEY}"]) == _headers()
    with time_machine.travel(AT, tick=False):
        signing.verify(f"whsec_{KEY}", _headers(), BODY)


@pytest.mark.parametrize("secret", [KEY, f"whsec_{KEY}"])
def test_a_secret_works_with_and_without_its_prefix(secret: str) -> None:
    assert signing.headers_for(ID, AT, BODY, [secret])["webhook-signature"] == SIGNATURE
    with time_machine.travel(AT, tick=False):
        signing.verify(secret, _headers(), BODY)


@pytest.mark.parametrize("hours", [-8, 0, 13])
def test_the_zone_of_the_time_changes_nothing(hours: int) -> None:
    there = AT.astimezone(dt.timezone(dt.timedelta(hours=hours)))
    assert signing.headers_for(ID, there, BODY, [KEY]) == _headers()


def test_each_secret_signs_and_each_is_enough() -> None:
    other = signing.new_secret()
    headers = signing.headers_for(ID, AT, BODY, [other, KEY])
    assert len(headers["webhook-signature"].split(" ")) == 2
    with time_machine.travel(AT, tick=False):
        signing.verify(other, headers, BODY)
        signing.verify(KEY, headers, BODY)
        with pytest.raises(BadSignature):
            signing.verify(signing.new_secret(), headers, BODY)


def test_what_is_signed_is_id_time_and_body() -> None:
    secret = signing.new_secret()
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, b"evt.1614265330.{}", hashlib.sha256)
    headers = signing.headers_for("evt", AT, b"{}", [secret])
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook_signature": ""},
        {"webhook_signature": "v1"},
        {"webhook_signature": "v1,"},
        {"webhook_signature": "v1,a,b"},
        {"webhook_signature": "v1,not base64"},
        {"webhook_signature": SIGNATURE.replace("v1", "v2")},
        {"webhook_signature": SIGNATURE.replace("g0h", "h0h")},
        {"webhook_id": ""},
        {"webhook_id": "msg_other"},
        {"webhook_timestamp": ""},
        {"webhook_timestamp": "nan"},
        {"webhook_timestamp": "1e400"},
        {"webhook_timestamp": "yesterday"},
        {"webhook_timestamp": "1614265331"},
    ],
)
def test_a_malformed_or_wrong_header_is_a_bad_signature(changes: dict[str, str]) -> None:
    with time_machine.travel(AT, tick=False), pytest.raises(BadSignature):
        signing.verify(KEY, _headers(**changes), BODY)


@pytest.mark.parametrize("body", [b'{"test": 2432232315}', b'{"test":2432232314}', b"", b"\xff"])
def test_another_body_is_a_bad_signature(body: bytes) -> None:
    with time_machine.travel(AT, tick=False), pytest.raises(BadSignature):
        signing.verify(KEY, _headers(), body)


@pytest.mark.parametrize("minutes", [-6, 6])
def test_a_message_of_another_time_is_a_bad_signature(minutes: int) -> None:
    with (
        time_machine.travel(AT + dt.timedelta(minutes=minutes), tick=False),
        pytest.raises(BadSignature, match="timestamp too"),
    ):
        signing.verify(KEY, _headers(), BODY)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_%%%"])
def test_what_can_be_no_secret_is_said_so(secret: str) -> None:
    with pytest.raises(BadSignature):
        signing.check_secret(secret)
