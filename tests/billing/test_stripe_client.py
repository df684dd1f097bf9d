"""One call to Stripe: what each answer, and each lack of one, means to us."""

import datetime as dt
import threading
import time
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from billing import pacing, stripe_client
from billing.stripe_client import customers, metering, sdk
from billing.stripe_facts import MeterEvent
from partner_api.local.stripe_twin.server import Twin
from partner_api.local.stripe_twin.world import Fault, Refusal


@pytest.fixture
def customer(twin: Twin) -> str:
    metering.create_meter("deed_grant", "Grant deeds", idempotency_key="meter")
    return customers.create("p-1", name="Acme", email="", idempotency_key="p-1").id


def event(customer: str, **changes: Any) -> MeterEvent:
    facts: dict[str, Any] = {"identifier": str(uuid4()), "timestamp": int(time.time()), "value": 1} | changes
    return MeterEvent(event_name="deed_grant", customer=customer, **facts)


def send(one: MeterEvent) -> str:
    return metering.send(one, idempotency_key=one.identifier)


def accepted(twin: Twin) -> list[str]:
    return [one.identifier for lane in twin.app.meters.accepted.values() for one in lane]


def refuse_events(twin: Twin, monkeypatch: pytest.MonkeyPatch, **error: Any) -> None:
    def refuse(params: Any, lane: Any, payload: Any) -> None:
        raise Refusal(400, **error)

    monkeypatch.setattr(twin.app.meters, "_accept", refuse)


def test_it_works(twin: Twin, customer: str) -> None:
    one = event(customer)
    assert send(one) == "accepted"
    assert accepted(twin) == [one.identifier]


def test_a_duplicate_identifier_is_done_already(twin: Twin, customer: str) -> None:
    one = event(customer)
    send(one)
    assert metering.send(one, idempotency_key="another") == "duplicate"
    assert accepted(twin) == [one.identifier]


@pytest.mark.parametrize(
    "error",
    [
        {"message": "An event already exists with identifier {identifier}."},
        {"message": "Duplicate identifier", "param": "identifier"},
        {"message": "{identifier} was used within a day", "code": "duplicate_meter_event"},
    ],
)
def test_a_duplicate_is_known_by_what_it_is_about(
    twin: Twin, customer: str, monkeypatch: pytest.MonkeyPatch, error: dict[str, str]
) -> None:
    one = event(customer)
    about = error | {"message": error["message"].format(identifier=one.identifier)}
    refuse_events(twin, monkeypatch, **about, headers={"stripe-should-retry": "false"})
    assert send(one) == "duplicate"


@pytest.mark.parametrize(
    ("error", "about"),
    [
        ({"message": 'No active meter found for event name "x".'}, "event_name"),
        ({"message": "No such meter", "code": "no_meter", "param": "event_name"}, "event_name"),
        ({"message": "It is archived", "code": "archived_meter"}, "event_name"),
        ({"message": "The event timestamp cannot be more than 5 minutes in the future."}, "timestamp"),
        ({"message": "Too new", "code": "timestamp_in_future"}, "timestamp"),
        ({"message": "A meter event needs a whole number", "param": "payload[value]"}, "payload[value]"),
        ({"message": "A meter event needs a whole number"}, ""),
    ],
)
def test_a_refused_event_says_what_is_wrong_with_it(
    twin: Twin, customer: str, monkeypatch: pytest.MonkeyPatch, error: dict[str, str], about: str
) -> None:
    """Stripe answers every one of them with `stripe-should-retry: false`, and some with a message alone."""
    refuse_events(twin, monkeypatch, **error, headers={"stripe-should-retry": "false"})
    with pytest.raises(stripe_client.Refused) as refused:
        send(event(customer))
    assert refused.value.param == about


def test_a_refusal_that_is_over_is_not_repeated_for_a_day(twin: Twin, customer: str) -> None:
    twin.app.api.customers.delete({}, customer)
    with pytest.raises(stripe_client.Gone):
        customers.setup_intent(customer, idempotency_key="k")
    twin.world.objects[customer]["deleted"] = False
    assert customers.setup_intent(customer, idempotency_key="k")


def test_the_same_call_again_is_the_same_call(twin: Twin, customer: str) -> None:
    one = event(customer)
    assert [send(one), send(one)] == ["accepted", "duplicate"]
    assert accepted(twin) == [one.identifier]


def test_a_500_after_having_done_it_counts_once(twin: Twin, customer: str) -> None:
    twin.world.faults = [Fault("500_after", "meter_events")]
    one = event(customer)
    with pytest.raises(stripe_client.Unavailable) as fault:
        send(one)
    assert fault.value.code == "status_500"
    # Stripe would repeat that 500 for a day; we ask once more under another key.
    assert send(one) == "duplicate"
    assert accepted(twin) == [one.identifier]


def test_a_lost_answer_counts_once(twin: Twin, customer: str) -> None:
    twin.world.faults = [Fault("lost", "meter_events")]
    one = event(customer)
    with pytest.raises(stripe_client.Unavailable):
        send(one)
    assert send(one) == "duplicate"
    assert accepted(twin) == [one.identifier]


@pytest.mark.parametrize("kind", ["outage", "500"])
def test_stripe_away_is_not_known(twin: Twin, customer: str, kind: str) -> None:
    twin.world.faults = [Fault(kind, "meter_events")]
    with pytest.raises(stripe_client.Unavailable):
        send(event(customer))
    assert accepted(twin) == []


def test_a_slow_stripe_is_left_after_the_timeout(twin: Twin, customer: str, settings: Any) -> None:
    settings.STRIPE_TIMEOUT_SECONDS = 0.1
    twin.world.faults = [Fault("slow", "meter_events", seconds=3.0)]
    started = time.monotonic()
    with pytest.raises(stripe_client.Unavailable) as fault:
        send(event(customer))
    assert fault.value.code == "no_answer"
    assert time.monotonic() - started < 3.0, "before it would have answered"


def test_the_sdk_repeats_what_was_lost(twin: Twin, customer: str, settings: Any) -> None:
    settings.STRIPE_MAX_NETWORK_RETRIES = 1
    twin.world.faults = [Fault("lost", "meter_events")]
    one = event(customer)
    assert send(one) == "duplicate"
    assert accepted(twin) == [one.identifier]


def test_too_fast_is_told_apart(twin: Twin, customer: str) -> None:
    twin.world.faults = [Fault("429", "meter_events")]
    with pytest.raises(stripe_client.Busy):
        send(event(customer))
    assert accepted(twin) == []


def test_two_at_once_for_a_customer_and_meter_are_refused(twin: Twin, customer: str) -> None:
    twin.world.work_seconds = 0.2
    results: list[str] = []

    def run() -> None:
        try:
            results.append(send(event(customer)))
        except stripe_client.Busy as busy:
            results.append(busy.code)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["accepted", "lock_timeout"]
    assert twin.world.violations.pop("concurrent_calls") == 1


def test_more_than_a_thousand_a_second_are_refused(twin: Twin, customer: str, settings: Any) -> None:
    settings.STRIPE_METER_EVENTS_PER_SECOND = 10_000
    twin.world.per_second = 3
    for _ in range(3):
        send(event(customer))
    with pytest.raises(stripe_client.Busy):
        send(event(customer))
    assert twin.world.violations.pop("meter_events_per_second") == 1


@pytest.mark.parametrize(
    ("age", "rule"), [(35 * 86_400 + 60, "timestamp_too_old"), (-360, "timestamp_in_the_future")]
)
def test_a_timestamp_out_of_bounds_is_refused(twin: Twin, customer: str, age: int, rule: str) -> None:
    with pytest.raises(stripe_client.Refused) as refused:
        send(event(customer, timestamp=int(time.time()) - age))
    assert refused.value.param == "timestamp"
    assert twin.world.violations.pop(rule) == 1


def test_an_identifier_has_a_hundred_characters_at_most(twin: Twin, customer: str) -> None:
    assert send(event(customer, identifier="x" * 100)) == "accepted"
    with pytest.raises(stripe_client.Refused):
        send(event(customer, identifier="x" * 101))
    assert twin.world.violations.pop("identifier_length") == 1


def test_a_key_for_another_call_is_told_apart(twin: Twin, customer: str) -> None:
    customers.portal_session(customer, return_url="https://a.example", idempotency_key="one")
    with pytest.raises(stripe_client.KeyReused):
        customers.portal_session(customer, return_url="https://b.example", idempotency_key="one")
    assert twin.world.violations.pop("idempotency_key_reused") == 1


def test_an_event_that_an_earlier_version_sent_otherwise_counts_once(twin: Twin, customer: str) -> None:
    one = event(customer)
    send(one)
    assert send(replace(one, dimensions=(("deed_type", "grant"),))) == "duplicate"
    assert twin.world.violations.pop("idempotency_key_reused") == 1
    assert accepted(twin) == [one.identifier]


def test_a_deleted_customer_is_gone(twin: Twin, customer: str) -> None:
    twin.app.api.customers.delete({}, customer)
    with pytest.raises(stripe_client.Gone):
        send(event(customer))
    assert customers.read(customer).is_deleted


def test_a_wrong_key_is_our_fault(twin: Twin, customer: str, settings: Any) -> None:
    settings.STRIPE_SECRET_KEY = "sk_test_wrong"
    with pytest.raises(stripe_client.Misconfigured):
        send(event(customer))


def test_aggregation_trails_behind(twin: Twin, customer: str) -> None:
    meter = metering.meters()["deed_grant"]
    twin.world.lag_seconds = 60
    send(event(customer))
    now = dt.datetime.now(dt.UTC).replace(second=0, microsecond=0)
    minutes = (now - dt.timedelta(minutes=2), now + dt.timedelta(minutes=2))
    assert metering.total(meter, customer, *minutes) == 0
    twin.world.lag_seconds = 0
    assert metering.total(meter, customer, *minutes) == 1


def test_the_rate_is_kept_by_all_threads_together(twin: Twin, customer: str, settings: Any) -> None:
    settings.STRIPE_METER_EVENTS_PER_SECOND = 200
    twin.world.per_second = 230
    lanes = [customers.create(f"q-{n}", name="Q", email="", idempotency_key=f"q-{n}").id for n in range(4)]

    def run(lane: str) -> None:
        for _ in range(75):
            send(event(lane))

    started = time.monotonic()
    threads = [threading.Thread(target=run, args=[lane]) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(accepted(twin)) == 300
    assert time.monotonic() - started > 1.2


def test_a_500_before_anything_was_done_is_over_when_stripe_is(twin: Twin) -> None:
    """Stripe repeats it for the key, for a day."""
    twin.world.faults = [Fault("500", "meters", method="POST")]
    with pytest.raises(stripe_client.Unavailable):
        metering.create_meter("deed_grant", "Grant deeds", idempotency_key="meter")
    assert metering.create_meter("deed_grant", "Grant deeds", idempotency_key="meter")


def test_each_page_of_a_list_is_a_call_at_our_pace(
    twin: Twin, customer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[None] = []
    monkeypatch.setattr(pacing.CALLS, "wait", lambda: waits.append(None))
    for number in range(sdk.PAGE + 1):
        twin.world.new("billing.meter", event_name=f"m{number}", status="active")
    assert len(metering.meters()) == sdk.PAGE + 2
    assert len(waits) == 2
