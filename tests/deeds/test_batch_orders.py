"""What each order of a batch comes to: as if they had been sent one after another."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from billing.models import BillingPeriod, Reservation
from deeds import backlog, fulfilment, hints
from deeds.models import Deed
from keys.models import Partner
from tests.api import Api
from tests.conftest import MainApi
from tests.deeds.kept import claim

Orders = Callable[..., dict[str, Any]]
Body = dict[str, Any]


@pytest.fixture(autouse=True)
def unsent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "send", lambda deed_id: None)
    monkeypatch.setattr(hints, "send_bulk", lambda deed_id: None)


@pytest.fixture
def made(api: Api, order: Orders, main_api: MainApi) -> Callable[..., Body]:
    """The answer to an order whose deed is completed by now."""

    def make(**members: Any) -> Body:
        answer = api.post("/v2/deeds", order(**members))
        assert answer.status_code == 202, answer.content
        assert fulfilment.serve(is_bulk=False)
        found: Body = answer.json()
        return found

    return make


def batch(api: Api, *orders: Body, **headers: str) -> list[Any]:
    answer = api.post("/v2/deeds/batch", {"orders": list(orders)}, **headers)
    assert answer.status_code == 207, answer.content
    found: list[Any] = answer.json()["data"]
    return found


def results(api: Api, *orders: Body, **headers: str) -> list[Any]:
    """The status of each, or the code of its problem."""
    answers = batch(api, *orders, **headers)
    return [one["problem"]["code"] if "problem" in one else one["status"] for one in answers]


def live(order_id: str) -> Deed:
    return Deed.objects.holding_identity().get(order_id=order_id)


def test_each_order_has_its_own_result_in_the_order_given(api: Api, order: Orders) -> None:
    api.post("/v2/deeds", order(order_id="same"))
    api.post("/v2/deeds", order(order_id="other"))
    given: list[Any] = [
        order(order_id="z"),
        order(order_id="bad", vesting=""),
        order(order_id="other", vesting="a widower"),
        order(order_id="same"),
        "no order",
        order(order_id="a"),
    ]
    answers = batch(api, *given)
    assert [one["status"] for one in answers] == [202, 422, 409, 200, 422, 202]
    assert [one["deed"]["order_id"] for one in answers if "deed" in one] == ["z", "same", "a"]
    assert answers[2]["problem"]["deed"] == str(live("other").pk)
    assert Deed.objects.count() == 4


def test_a_batch_whose_half_conflicts_makes_the_other_half(api: Api, order: Orders) -> None:
    batch(api, *(order(order_id=f"B-{number}") for number in range(0, 20, 2)))
    mixed = [order(order_id=f"B-{number}", vesting="a widower") for number in range(20)]
    assert results(api, *mixed) == ["order_conflict", 202] * 10
    assert Deed.objects.count() == Reservation.objects.count() == 20


def test_one_order_twice_is_one_deed(api: Api, order: Orders) -> None:
    a, other = order(order_id="A"), order(order_id="A", vesting="a widower")
    first, second, third = batch(api, a, other, a)
    assert (first["status"], second["status"], third["status"]) == (202, 409, 200)
    assert second["problem"]["deed"] == first["deed"]["id"] == third["deed"]["id"]
    assert Deed.objects.count() == Reservation.objects.count() == 1


def test_another_deed_type_is_another_order(api: Api, order: Orders) -> None:
    assert results(api, order(order_id="A"), order("quitclaim", order_id="A")) == [202, 202]


def test_a_correction_after_the_order_that_it_corrects(
    api: Api, order: Orders, made: Callable[..., Body]
) -> None:
    deed = made(order_id="A")
    corrected = order(order_id="A", vesting="a widower", reissue_of=deed["id"])
    first, second = batch(api, order(order_id="A"), corrected)
    assert (first["status"], first["deed"]["id"]) == (200, deed["id"])
    assert (second["status"], second["deed"]["id"]) == (202, str(live("A").pk))


def test_a_correction_before_the_order_that_it_corrects(
    api: Api, order: Orders, made: Callable[..., Body]
) -> None:
    deed = made(order_id="A")
    corrected = order(order_id="A", vesting="a widower", reissue_of=deed["id"])
    again = order(order_id="A", vesting="a single woman", reissue_of=deed["id"])
    assert results(api, corrected, order(order_id="A"), corrected, again) == [
        202,
        "order_conflict",
        200,
        "order_conflict",
    ]
    assert Deed.objects.count() == 2


def test_a_deed_of_the_batch_itself_is_not_corrected_in_it(api: Api, order: Orders) -> None:
    """It is queued until the batch is answered, whoever knew its id."""
    queued = batch(api, order(order_id="A"))[0]["deed"]["id"]
    corrected = order(order_id="A", vesting="a widower", reissue_of=queued)
    first, second = batch(api, order(order_id="A"), corrected)
    assert first["status"] == 200
    assert "still queued" in second["problem"]["detail"]
    assert str(live("A").pk) == queued


def test_a_correction_of_a_failed_deed_beside_a_new_order_for_it(api: Api, order: Orders) -> None:
    failed = batch(api, order(order_id="A"))[0]["deed"]["id"]
    Deed.objects.update(status="failed", failure_code="invalid_pdf")
    corrected = order(order_id="A", vesting="a widower", reissue_of=failed)
    assert results(api, order(order_id="A"), corrected) == [202, "order_conflict"]
    assert live("A").reissue_of_id is None


def test_what_can_not_be_corrected_is_told_for_each(
    api: Api, stranger: Api, order: Orders, made: Callable[..., Body]
) -> None:
    deed = made(order_id="A")
    foreign = stranger.post("/v2/deeds", order(order_id="A")).json()["id"]
    of_another_order = order(order_id="B", reissue_of=deed["id"])
    assert results(
        api, order(order_id="A", reissue_of=foreign), of_another_order, order(order_id="A", reissue_of="x")
    ) == ["order_conflict", "order_conflict", "validation_error"]
    assert live_ids() == {deed["id"], foreign}


def live_ids() -> set[str]:
    return {str(pk) for pk in Deed.objects.holding_identity().values_list("pk", flat=True)}


# --- a quota, or room, that ends in the middle --------------------------------------------------


def test_a_correction_that_the_quota_refuses_replaces_nothing(
    api: Api, order: Orders, made: Callable[..., Body]
) -> None:
    deeds = [made(order_id=order_id) for order_id in ("A", "B")]
    Partner.objects.filter(pk=api.partner.pk).update(monthly_deed_quota=3)
    a, b = (order(order_id=deed["order_id"], vesting="a widower", reissue_of=deed["id"]) for deed in deeds)
    assert results(api, b, a, order(order_id="B"), order(order_id="A")) == [
        202,
        "quota_exceeded",
        "order_conflict",
        200,
    ]
    assert str(live("A").pk) == deeds[0]["id"], "it stands as before"
    assert live("B").reissue_of_id is not None
    assert Reservation.objects.count() == BillingPeriod.objects.get().deeds_reserved == 1
    Partner.objects.filter(pk=api.partner.pk).update(monthly_deed_quota=4)
    assert results(api, a) == [202]


def test_the_quota_serves_the_first_given_whatever_their_names(
    api: Api, order: Orders, made: Callable[..., Body]
) -> None:
    deed = made(order_id="M")
    Partner.objects.filter(pk=api.partner.pk).update(monthly_deed_quota=3)
    corrected = order(order_id="M", vesting="a widower", reissue_of=deed["id"])
    given = [order(order_id="Z"), corrected, order(order_id="A"), order(order_id="Z"), order(order_id="A")]
    assert results(api, *given) == [202, 202, "quota_exceeded", 200, "quota_exceeded"]


def test_what_stands_takes_no_place_where_the_quota_is_used_up(api: Api, order: Orders) -> None:
    Partner.objects.filter(pk=api.partner.pk).update(monthly_deed_quota=1)
    api.post("/v2/deeds", order(order_id="A"))
    assert results(api, order(order_id="B"), order(order_id="A")) == ["quota_exceeded", 200]


def test_room_that_ends_in_the_middle(
    api: Api, order: Orders, made: Callable[..., Body], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "COUNT_EVERY_SECONDS", -1.0)
    deed = made(order_id="M")
    settings.DEED_MAX_QUEUED_PER_PARTNER = 2
    corrected = order(order_id="M", vesting="a widower", reissue_of=deed["id"])
    given = [order(order_id="Z"), order(order_id="bad", vesting=""), order(order_id="Y"), corrected]
    assert results(api, *given, order(order_id="M"), order(order_id="Z"), order(order_id="A")) == [
        202,
        "validation_error",
        202,
        "queue_full",
        200,
        200,
        "queue_full",
    ]
    assert str(live("M").pk) == deed["id"]
    assert Deed.objects.filter(status="queued").count() == 2


# --- sent again ---------------------------------------------------------------------------------


def test_after_some_were_made_a_replay_is_the_first_answer_and_without_a_key_they_are_as_they_are_now(
    api: Api, order: Orders, main_api: MainApi
) -> None:
    orders = [order(order_id=f"B-{number}") for number in range(3)]
    first = batch(api, *orders, Idempotency_Key="k")
    assert fulfilment.serve(is_bulk=True)
    claim(Deed.objects.get(order_id="B-1"))
    assert batch(api, *orders, Idempotency_Key="k") == first
    now = batch(api, *orders)
    assert [one["status"] for one in now] == [200] * 3
    assert sorted(one["deed"]["status"] for one in now) == ["completed", "queued", "rendering"]
    assert [one["deed"]["id"] for one in now] == [one["deed"]["id"] for one in first]
    made = next(one["deed"] for one in now if one["deed"]["status"] == "completed")
    pdf = Client().get(made["pdf"]["url"].removeprefix("http://testserver"))
    assert pdf.status_code == 200
    assert Deed.objects.count() == 3


def test_a_batch_of_corrections_sent_again_without_a_key_is_the_same_deeds(
    api: Api, order: Orders, made: Callable[..., Body]
) -> None:
    deeds = [made(order_id=order_id) for order_id in ("A", "B")]
    corrections = [
        order(order_id=deed["order_id"], vesting="a widower", reissue_of=deed["id"]) for deed in deeds
    ]
    first = batch(api, *corrections)
    again = batch(api, *corrections)
    assert [one["status"] for one in first + again] == [202, 202, 200, 200]
    assert [one["deed"]["id"] for one in first] == [one["deed"]["id"] for one in again]
    assert {one["deed"]["status"] for one in first} == {"queued"}


def test_one_that_was_accepted_in_a_batch_is_the_same_order_by_itself(api: Api, order: Orders) -> None:
    deed = batch(api, order(order_id="A"))[0]["deed"]
    alone = api.post("/v2/deeds", order(order_id="A"))
    assert (alone.status_code, alone["Idempotent-Replayed"], alone.json()) == (200, "true", deed)


def test_a_key_is_the_partners_and_modes_own(api: Api, stranger: Api, acme: Partner, order: Orders) -> None:
    orders = order(order_id="A"), order(order_id="B")
    senders = api, stranger, Api.of(acme, environment="test")
    made = [batch(sender, *orders, Idempotency_Key="k") for sender in senders]
    assert [[one["status"] for one in answers] for answers in made] == [[202, 202]] * 3
    assert len({one["deed"]["id"] for answers in made for one in answers}) == 6
    assert [batch(sender, *orders, Idempotency_Key="k") for sender in senders] == made


def test_layout_makes_no_other_batch_and_sequence_does(api: Api, order: Orders) -> None:
    orders = [order(order_id="A"), order(order_id="B")]
    first = api.post("/v2/deeds/batch", {"orders": orders}, Idempotency_Key="k")
    shuffled = {"orders": [dict(reversed(one.items())) for one in orders]}
    again = api.post("/v2/deeds/batch", json.dumps(shuffled, indent=2).encode(), Idempotency_Key="k")
    assert (again.content, again["Idempotent-Replayed"]) == (first.content, "true")
    other = api.post("/v2/deeds/batch", {"orders": orders[::-1]}, Idempotency_Key="k")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
