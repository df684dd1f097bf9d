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
