"""The back office in tests: its tokens, and its calls to the admin API."""

import json
import time
from base64 import urlsafe_b64encode
from typing import Any

import jwt
from django.test import Client

SECRET = "a shared secret of more than thirty-two bytes"
BASE = "/admin-api/v1"


def claims(**changes: Any) -> dict[str, Any]:
    """A good token's; a change to None leaves one out."""
    now = int(time.time())
    good = {
        "sub": "maria",
        "role": "owner",
        "aud": "partner-api-admin",
        "iss": "main-api",
        "iat": now,
        "exp": now + 60,
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def token(role: str | None = "owner", **changes: Any) -> str:
    return jwt.encode(claims(role=role, **changes), SECRET, algorithm="HS256")


def send(
    method: str,
    path: str,
    body: Any = None,
    text: str | None = None,
    *,
    idempotency_key: str | None = None,
    **extra: Any,
) -> Any:
    key = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
    return Client(raise_request_exception=False).generic(
        method,
        BASE + path,
        b"" if body is None else json.dumps(body).encode(),
        content_type="application/json",
        headers={"Authorization": f"Bearer {token() if text is None else text}", **key},
        **extra,
    )


def refused(text: str) -> dict[str, Any]:
    """The 401, which has one shape whatever is wrong."""
    answer = send("GET", "/partners", text=text)
    assert answer.status_code == 401, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    assert answer["WWW-Authenticate"].startswith("Bearer")
    body: dict[str, Any] = answer.json()
    assert body["code"] == "invalid_token"
    del body["request_id"]
    return body


def unsigned(header: dict[str, str], body: dict[str, Any]) -> str:
    parts = (urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, body))
    return ".".join((*parts, ""))
