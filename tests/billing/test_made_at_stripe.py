"""What is made at Stripe for a partner that sends an `Idempotency-Key`: once, whatever breaks in between."""

from typing import Any

import pytest
from django.db import connection

from billing.stripe_client import customers
from partner_api.http.models import KeptAnswer
from partner_api.local.stripe_twin.server import Twin
from partner_api.local.stripe_twin.world import Fault
from tests.api import Api
from tests.billing.books import provisioned

KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"
INTENTS = "POST /v1/setup_intents"


def test_stripe_is_asked_once_and_not_at_all_for_a_repetition(api: Api, twin: Twin) -> None:
    provisioned(api.partner)
    first, again = (api.post("/v2/billing/setup-intent", Idempotency_Key=KEY) for _ in range(2))
    assert again.json() == first.json()
    assert twin.world.calls[INTENTS] == 1
    assert api.post("/v2/billing/setup-intent", Idempotency_Key="another").json() != first.json()


def test_a_crash_after_stripes_answer_makes_nothing_twice(
    api: Api, twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    provisioned(api.partner)

    def dies(*_: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(KeptAnswer, "store", dies)
        with pytest.raises(SystemExit):
            api.post("/v2/billing/setup-intent", Idempotency_Key=KEY)
    answer = api.post("/v2/billing/setup-intent", Idempotency_Key=KEY)
    [intent] = twin.world.all("setup_intent")
    assert answer.json() == {"client_secret": intent["client_secret"]}
    assert twin.world.calls[INTENTS] == 2


def test_stripe_is_asked_in_no_transaction(api: Api, twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    provisioned(api.partner)
    depth, depths = len(connection.savepoint_ids), []
    setup_intent = customers.setup_intent

    def noted(*args: Any, **kwargs: Any) -> str:
        depths.append(len(connection.savepoint_ids) - depth)
        return setup_intent(*args, **kwargs)

    monkeypatch.setattr(customers, "setup_intent", noted)
    assert api.post("/v2/billing/setup-intent", Idempotency_Key=KEY).status_code == 200
    assert depths == [0]


def test_a_5xx_of_stripes_does_not_hold_the_key_for_a_day(api: Api, twin: Twin) -> None:
    provisioned(api.partner)
    twin.world.faults = [Fault("500_after", path="setup_intents")]
    assert api.post("/v2/billing/setup-intent", Idempotency_Key=KEY).status_code == 503
    assert api.post("/v2/billing/setup-intent", Idempotency_Key=KEY).status_code == 200


class Running(set[str]):
    """At Stripe, the first call of every key runs still."""

    def __contains__(self, key: object) -> bool:
        return True


def test_while_the_first_is_at_stripe_the_second_is_told_to_wait(
    api: Api, twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    provisioned(api.partner)
    with monkeypatch.context() as patch:
        patch.setattr(twin.app, "_running", Running())
        answer = api.post("/v2/billing/setup-intent", Idempotency_Key=KEY)
        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_in_progress")
        assert answer["Retry-After"] == "1"
    assert api.post("/v2/billing/setup-intent", Idempotency_Key=KEY).status_code == 200
