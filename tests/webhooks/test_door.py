"""A flood at the open door: it is told to wait, and who signs from the same office is not."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from keys.models import Partner
from tests.webhooks.inbound_calls import FIRST, post, send, sign
from webhooks.models import InboundEvent, Source

Sources = Callable[..., Source]
FORGED = {"X-SoftPro-Signature": "0" * 64}


pytestmark = pytest.mark.usefixtures("hinted", "clock")


def _order(number: int) -> dict[str, Any]:
    return {**FIRST, "order_id": f"SP-{number}"}


def test_it_works(source: Sources, settings: Any) -> None:
    settings.FAILED_AUTH_PER_MINUTE, settings.FAILED_AUTH_BURST = 6, 5
    settings.PUBLIC_RATE_LIMIT_PER_MINUTE, settings.PUBLIC_RATE_LIMIT_BURST = 1, 1
    source()
    answers = [post(b"{}", FORGED) for _ in range(8)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 3
    assert answers[-1].json()["code"] == "rate_limited"
    assert 0 < int(answers[-1]["Retry-After"]) <= 10
    for number in range(20):
        assert send(_order(number)).status_code == 202
    assert InboundEvent.objects.count() == 20
    assert post(b"{}", FORGED).status_code == 429, "the address was not forgiven for it"


@pytest.mark.parametrize(
    ("body", "headers", "system"),
    [
        (b"{}", {}, "softpro"),
        (b"{}", {"X-SoftPro-Signature": "nonsense"}, "softpro"),
        (b"{}", FORGED | {"X-Webhook-Source": "nonsense"}, "softpro"),
        (b"{}", FORGED, "acme"),
        (b"x" * 2_000_000, FORGED, "softpro"),
        (b"{}", sign(b"{}", at="1000000000"), "softpro"),
    ],
)
def test_whatever_is_not_proven_counts(
    source: Sources, settings: Any, body: bytes, headers: dict[str, str], system: str
) -> None:
    settings.FAILED_AUTH_PER_MINUTE, settings.FAILED_AUTH_BURST = 1, 1
    source()
    assert post(body, headers, system).status_code in {401, 404, 413}
    assert post(body, headers, system).status_code == 429
    assert send().status_code == 202


def test_another_address_is_not_told_to_wait(source: Sources, settings: Any) -> None:
    settings.FAILED_AUTH_PER_MINUTE, settings.FAILED_AUTH_BURST = 1, 1
    source()
    for expected in (401, 429):
        assert post(b"{}", FORGED).status_code == expected
    elsewhere = Client().post(
        "/v1/webhooks/softpro",
        b"{}",
        content_type="application/json",
        headers=FORGED,
        REMOTE_ADDR="203.0.113.9",
    )
    assert elsewhere.status_code == 401


def test_a_source_has_a_limit_of_its_own(source: Sources, settings: Any) -> None:
    settings.WEBHOOKS_SOURCE_PER_MINUTE, settings.WEBHOOKS_SOURCE_BURST = 1, 2
    source()
    source(secret="theirs", partner=Partner.objects.create(name="Pacific Escrow"))
    answers = [send(_order(number)) for number in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert 0 < int(answers[-1]["Retry-After"]) <= 60
    assert InboundEvent.objects.count() == 2, "what was refused is not stored, and can be sent again"
    body = json.dumps(FIRST).encode()
    assert post(body, sign(body, secret="theirs")).status_code == 202


def test_what_a_proven_source_does_wrong_does_not_count_against_its_office(
    source: Sources, settings: Any
) -> None:
    settings.FAILED_AUTH_PER_MINUTE, settings.FAILED_AUTH_BURST = 1, 1
    source()
    for _ in range(3):
        assert send(X_Webhook_Id="a b").status_code == 400
    Partner.objects.update(status="suspended")
    for _ in range(3):
        assert send().json()["code"] == "partner_suspended"
    assert post(b"{}", FORGED).status_code == 401


def test_a_suspended_partners_source_has_its_limit_too(source: Sources, settings: Any) -> None:
    settings.WEBHOOKS_SOURCE_PER_MINUTE, settings.WEBHOOKS_SOURCE_BURST = 1, 2
    source()
    Partner.objects.update(status="suspended")
    codes = [send(_order(number)).json()["code"] for number in range(3)]
    assert codes == ["partner_suspended", "partner_suspended", "rate_limited"]
