"""What the title production systems send in tests, and how they sign it."""

import datetime as dt
import hashlib
import hmac
import json
from typing import Any

from django.test import Client

from tests.webhooks.conftest import NOW
from webhooks.models import InboundEvent

# As the first version's clients send it.
FIRST = {
    "order_id": "SP-1",
    "deed_type": "grant_deed",
    "property_address": "123 Main St, La Verne, CA 91750",
    "parties": {"grantor": "ALICE SMITH; CAROL SMITH", "grantee": ["BOB JONES"]},
    "metadata": {
        "county": "Los Angeles",
        "apn": "8381-021-001",
        "legal_description": "LOT 1 OF TRACT NO. 6654",
        "vesting": "a single man",
        "dtt": {
            "amount": 825,
            "basis": "full_value",
            "area_type": "city",
            "city_name": "La Verne",
            "is_exempt": False,
        },
        "escrow_no": "E-1",
        "branch": "Pomona",
        "priority": 2,
    },
}


def sign(body: bytes, *, secret: str = "secret", at: dt.datetime | str | None = NOW) -> dict[str, str]:
    """Headers; without a time for `at` None."""
    if at is None:
        signed, headers = body, {}
    else:
        text = at if isinstance(at, str) else str(int(at.timestamp()))
        signed, headers = text.encode() + b"." + body, {"X-Webhook-Timestamp": text}
    return {**headers, "X-SoftPro-Signature": hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}


def post(body: bytes, headers: dict[str, str], system: str = "softpro") -> Any:
    return Client(raise_request_exception=False).post(
        f"/v1/webhooks/{system}", body, content_type="application/json", headers=headers
    )


def send(payload: Any = FIRST, **headers: str) -> Any:
    body = json.dumps(payload).encode()
    return post(body, sign(body) | {name.replace("_", "-"): value for name, value in headers.items()})


def refused_as(answer: Any, code: str = "invalid_signature") -> None:
    assert (answer.status_code, answer.json()["code"]) == (401, code), answer.content
    assert answer["Content-Type"] == "application/problem+json"
    assert not InboundEvent.objects.exists()
