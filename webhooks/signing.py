"""Signatures of messages, by Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`.

The `standardwebhooks` package signs and compares; around it stands what it leaves to its caller. It
takes a time without regard to its zone, and for malformed headers it raises whatever breaks first.
"""

import base64
import datetime as dt
import secrets
from collections.abc import Mapping
from typing import Final

from standardwebhooks import Webhook, WebhookVerificationError

SECRET_PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = 32


class BadSignature(Exception):
    """The message is not one that the secret's holder sent now; the text says what is wrong."""


def new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode("ascii")


def check_secret(secret: str) -> None:
    """Raises BadSignature for a text that no secret can be."""
    try:
        if base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True):
            return
    except ValueError as error:
        raise BadSignature("A secret is whsec_ and base64") from error
    raise BadSignature("The secret is empty")


def headers_for(message_id: str, at: dt.datetime, body: bytes, signers: list[str]) -> dict[str, str]:
    """The three headers of a message, with one signature by each secret. `at` is aware, in any zone."""
    text = body.decode()
    moment = at.astimezone(dt.UTC)
    signatures = [Webhook(secret).sign(message_id, moment, text) for secret in signers]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def verify(secret: str, headers: Mapping[str, str], body: bytes) -> None:
    """Raises BadSignature. The time may differ from ours by five minutes either way."""
    try:
        Webhook(secret).verify(body, dict(headers), json_parse=False)
    except WebhookVerificationError as error:
        raise BadSignature(str(error)) from error
    except UnicodeDecodeError as error:
        raise BadSignature("The body is not UTF-8") from error
    except ValueError as error:
        raise BadSignature("The signature header is malformed") from error
