"""Corrected deeds: which one stands for its order, whatever becomes of the correction."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError
from django.test import Client
from django.utils import timezone

from billing.models import LedgerEntry
from deeds import fulfilment, hints, ordering, sweeping
from deeds.models import Deed
from keys.models import Partner
from tests.api import Api
from tests.conftest import MainApi
from tests.deeds.kept import Orders, claim

Correct = Callable[..., Deed]


@pytest.fixture(autouse=True)
def unsent(main_api: MainApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "send", lambda deed_id: None)


@pytest.fixture
def correct(api: Api, order: Orders) -> Correct:
    """Orders a deed, or a correction of one."""

    def make(of: Deed | None = None, vesting: str = "a married man", order_id: str = "ORD-1") -> Deed:
        members = {"order_id": order_id} | ({} if of is None else {"reissue_of": str(of.pk)})
        answer = api.post("/v2/deeds", order(vesting=vesting, **members))
        assert answer.status_code == 202, answer.json()
        return Deed.objects.get(pk=answer.json()["id"])

    return make


@pytest.fixture
def fails(main_api: MainApi) -> Callable[[Deed], Deed]:
    """Makes the deed whose turn it is, at which the renderer fails for good."""

    def make(deed: Deed) -> Deed:
        renders = main_api.answer

        def refuses(environ: Any, start_response: Any) -> list[bytes]:
            start_response("400 Bad Request", [("Content-Type", "application/json")])
            return [b'{"detail": "no"}']

        main_api.answer = refuses
        made = makes(deed)
        main_api.answer = renders
        assert made.status == "failed"
        return made

    return make


def makes(deed: Deed) -> Deed:
    assert fulfilment.serve(is_bulk=False)
    deed.refresh_from_db()
    return deed


def live() -> Deed:
    return Deed.objects.holding_identity().get()


def test_what_can_be_done_about_a_deed_that_is_not_made_yet_is_said(
    correct: Correct, api: Api, order: Orders
) -> None:
    first = correct()
    corrected = order(order_id="ORD-1", vesting="a widow", reissue_of=str(first.pk))
    assert "queued; cancel it, or wait" in api.post("/v2/deeds", corrected).json()["detail"]
    claim(first)
    detail = api.post("/v2/deeds", corrected).json()["detail"]
    assert "cancel" not in detail, "a deed that is being rendered can't be"
    assert "wait until it is made" in detail


def test_a_failed_deed_that_was_replaced_is_not_made_as_well(
    correct: Correct, fails: Correct, staff: Client
) -> None:
    first = fails(correct())
    second = makes(correct(first, "a widower"))
    assert second.status == "completed"
    url = f"/admin/deeds/deed/{first.pk}/requeue/"
    assert url not in staff.get(f"/admin/deeds/deed/{first.pk}/change/").content.decode()
    assert "that no other replaced" in staff.post(url, {"reason": "x"}).content.decode()
    assert not ordering.requeue(Deed.objects.get(pk=first.pk))
    assert not fulfilment.serve(is_bulk=False)
    assert not LedgerEntry.objects.filter(source_id=str(first.pk)).exists(), "nor charged"
    assert live() == second


def test_a_correction_that_fails_leaves_the_first_deed_standing(
    correct: Correct, fails: Correct, api: Api, order: Orders
) -> None:
    first = makes(correct())
    second = correct(first, "a widower")
    assert live() == second
    fails(second)
    assert live() == first
    again = api.post("/v2/deeds", order(order_id="ORD-1", vesting="a married man"))
    assert (again.status_code, again.json()["id"]) == (200, str(first.pk))


@pytest.mark.parametrize("number", [0, 1], ids=["reissuing the first", "reissuing the one that failed"])
def test_after_a_correction_that_failed_another_one_is_taken(
    correct: Correct, fails: Correct, api: Api, order: Orders, number: int
) -> None:
    first = makes(correct())
    second = fails(correct(first, "a widower"))
    replaced = (first, second)[number]
    third = correct(replaced, "a single man")
    assert live() == third
    again = api.post(
        "/v2/deeds", order(order_id="ORD-1", vesting="a single man", reissue_of=str(replaced.pk))
    )
    assert (again.status_code, again.json()["id"]) == (200, str(third.pk))
    fails(third)
    assert live() == first


def test_a_correction_that_is_cancelled_leaves_the_first_deed_standing(correct: Correct, api: Api) -> None:
    first = makes(correct())
    second = correct(first, "a widower")
    assert api.post(f"/v2/deeds/{second.pk}/cancel").status_code == 200
    assert live() == first


def test_a_correction_that_ends_its_workers_leaves_the_first_deed_standing(
    correct: Correct, settings: Any
) -> None:
    settings.DEED_MAX_CRASHES = 1
    first = makes(correct())
    second = correct(first, "a widower")
    Deed.objects.filter(pk=second.pk).update(
        status="rendering", lease=second.pk, lease_expires_at=timezone.now()
    )
    assert sweeping.sweep()["recovered"] == 1
    assert live() == first


def test_a_correction_that_is_queued_again_takes_its_place_again(correct: Correct, fails: Correct) -> None:
    first = makes(correct())
    second = fails(correct(first, "a widower"))
    assert ordering.requeue(second)
    assert live() == second
    assert makes(second).status == "completed"
    assert live() == second


def test_a_correction_is_not_queued_again_beside_a_later_one(correct: Correct, fails: Correct) -> None:
    first = makes(correct())
    second = fails(correct(first, "a widower"))
    third = correct(first, "a single man")
    with pytest.raises(IntegrityError, match="one_live_deed_per_order"):
        ordering.requeue(second)
    assert live() == third


def test_a_refused_queueing_replaces_nothing(correct: Correct, api: Api) -> None:
    first = makes(correct())
    second = correct(first, "a widower")
    api.post(f"/v2/deeds/{second.pk}/cancel")
    assert not ordering.requeue(Deed.objects.get(pk=second.pk))
    assert live() == first


def test_another_correction_is_not_taken_for_the_one_that_waits(
    correct: Correct, api: Api, order: Orders
) -> None:
    first = makes(correct())
    second = correct(first, "a widower")
    another = order(order_id="ORD-1", vesting="a widow", reissue_of=str(first.pk))
    refused = api.post("/v2/deeds", another)
    assert (refused.status_code, refused.json()["deed"]) == (409, str(second.pk))
    assert Deed.objects.count() == 2


def test_a_correction_that_finds_no_place_replaces_nothing(
    correct: Correct, api: Api, order: Orders, acme: Partner
) -> None:
    first = makes(correct())
    Partner.objects.filter(pk=acme.pk).update(monthly_deed_quota=1)
    corrected = order(order_id="ORD-1", vesting="a widow", reissue_of=str(first.pk))
    refused = api.post("/v2/deeds", corrected)
    assert (refused.status_code, refused.json()["code"]) == (402, "quota_exceeded")
    assert live() == first
    assert Deed.objects.count() == 1


def test_of_corrections_in_a_batch_one_that_finds_no_place_takes_no_other_along(
    correct: Correct, api: Api, order: Orders, acme: Partner
) -> None:
    first, second = (makes(correct(order_id=order_id)) for order_id in ("ORD-1", "ORD-2"))
    Partner.objects.filter(pk=acme.pk).update(monthly_deed_quota=3)
    orders = [
        order(order_id=one.order_id, vesting="a widow", reissue_of=str(one.pk)) for one in (first, second)
    ]
    answer = api.post("/v2/deeds/batch", {"orders": orders}, Idempotency_Key="both")
    assert [result["status"] for result in answer.json()["data"]] == [202, 402]
    standing = set(Deed.objects.holding_identity().values_list("reissue_of", "order_id"))
    assert standing == {(first.pk, "ORD-1"), (None, "ORD-2")}


def test_a_correction_that_the_queue_has_no_room_for_is_told_so(
    correct: Correct, api: Api, order: Orders, settings: Any
) -> None:
    first = makes(correct())
    settings.DEED_MAX_QUEUED_PER_PARTNER = 0
    corrected = order(order_id="ORD-1", vesting="a widow", reissue_of=str(first.pk))
    refused = api.post("/v2/deeds", corrected)
    assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
    assert live() == first


@pytest.mark.parametrize(
    ("kind", "environment", "order_id"),
    [("grant", "test", "ORD-1"), ("grant", "live", "ORD-2"), ("quitclaim", "live", "ORD-1")],
    ids=["in the other mode", "by another order", "of another type"],
)
def test_a_deed_is_corrected_by_its_own_order_only(
    correct: Correct, acme: Partner, order: Orders, kind: str, environment: str, order_id: str
) -> None:
    first = makes(correct())
    corrected = order(kind, order_id=order_id, reissue_of=str(first.pk))
    refused = Api.of(acme, environment=environment).post("/v2/deeds", corrected)
    assert (refused.status_code, refused.json()["code"]) == (409, "order_conflict")
    assert refused.json()["errors"][0]["pointer"] == "/reissue_of"
    assert live() == first


def test_a_correction_of_a_deed_that_was_corrected_twice_names_the_last(
    correct: Correct, api: Api, order: Orders
) -> None:
    first = makes(correct())
    second = makes(correct(first, "a widower"))
    third = makes(correct(second, "a widow"))
    again = order(order_id="ORD-1", vesting="a widow", reissue_of=str(first.pk))
    refused = api.post("/v2/deeds", again)
    assert (refused.status_code, refused.json()["deed"]) == (409, str(third.pk))
