"""Deeds in the admin."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from deeds import hints, tasks
from deeds.models import Deed
from keys.models import AuditEntry, Partner
from tests.api import Api
from tests.conftest import MainApi

Orders = Callable[..., dict[str, Any]]


@pytest.fixture
def place(api: Api, order: Orders) -> Callable[[str], Deed]:
    def make(order_id: str) -> Deed:
        return Deed.objects.get(pk=api.post("/v2/deeds", order(order_id=order_id)).json()["id"])

    return make


def test_a_deed_shows_its_way_and_its_pdf(
    staff: Client, place: Callable[[str], Deed], main_api: MainApi
) -> None:
    deed = place("A-1")
    tasks.render(str(deed.pk))
    page = staff.get(f"/admin/deeds/deed/{deed.pk}/change/").content.decode()
    for text in ("queued", "rendering", "completed", "ALICE SMITH", "SHA-256"):
        assert text in page
    opened = staff.get(f"/admin/deeds/deed/{deed.pk}/pdf/")
    assert opened.status_code == 302
    entry = AuditEntry.objects.get(action="deed.pdf_opened")
    assert (entry.actor, entry.target_id, entry.partner) == ("root", str(deed.pk), deed.partner)
    pdf = staff.get(opened["Location"].removeprefix("http://testserver"))
    assert pdf.getvalue().startswith(b"%PDF-")
    pdf.close()


def test_a_failed_deed_can_be_queued_again(
    staff: Client,
    place: Callable[[str], Deed],
    main_api: MainApi,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Any,
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(hints, "send", sent.append)
    deed = place("sandbox-400")
    tasks.render(str(deed.pk))
    url = f"/admin/deeds/deed/{deed.pk}/requeue/"
    assert "given all its attempts again" in staff.get(url).content.decode()
    assert staff.post(url).status_code == 200
    assert Deed.objects.get().status == "failed", "without a reason nothing is done"
    with django_capture_on_commit_callbacks(execute=True):
        assert staff.post(url, {"reason": "the renderer is mended"}).status_code == 302
    deed.refresh_from_db()
    assert (deed.status, deed.failure_code, deed.attempts) == ("queued", "", 0)
    assert deed.timeline[-1]["detail"] == "requeued_by_staff"
    assert sent == [str(deed.pk)]
    entry = AuditEntry.objects.get(action="deed.requeued")
    assert (entry.target_id, entry.reason) == (str(deed.pk), "the renderer is mended")
    assert url not in staff.get(f"/admin/deeds/deed/{deed.pk}/change/").content.decode()


def test_a_failed_deed_whose_order_went_to_another_stays_failed(
    staff: Client, place: Callable[[str], Deed], main_api: MainApi
) -> None:
    deed = place("sandbox-400")
    tasks.render(str(deed.pk))
    assert place("sandbox-400") != deed
    answer = staff.post(f"/admin/deeds/deed/{deed.pk}/requeue/", {"reason": "x"})
    assert "taken over this order" in answer.content.decode()
    deed.refresh_from_db()
    assert deed.status == "failed"


def test_a_queued_deed_is_not_queued_again(staff: Client, place: Callable[[str], Deed]) -> None:
    deed = place("A-1")
    answer = staff.post(f"/admin/deeds/deed/{deed.pk}/requeue/", {"reason": "x"})
    assert "Only a failed deed" in answer.content.decode()


def test_deeds_are_neither_added_edited_nor_deleted(staff: Client, place: Callable[[str], Deed]) -> None:
    deed = place("A-1")
    assert staff.get("/admin/deeds/deed/add/").status_code == 403
    assert staff.post(f"/admin/deeds/deed/{deed.pk}/delete/", {"post": "yes"}).status_code == 403
    staff.post(f"/admin/deeds/deed/{deed.pk}/change/", {"status": "completed", "order_id": "B"})
    deed.refresh_from_db()
    assert (deed.status, deed.order_id) == ("queued", "A-1")


@pytest.mark.parametrize("search", ["A-1", "{id}"])
def test_a_deed_is_found_by_either_id(staff: Client, place: Callable[[str], Deed], search: str) -> None:
    deed = place("A-1")
    other = place("A-2")
    page = staff.get("/admin/deeds/deed/", {"q": search.format(id=deed.pk)}).content.decode()
    assert str(deed.pk) in page
    assert str(other.pk) not in page


def test_the_list_costs_a_constant_number_of_queries(
    staff: Client, acme: Partner, place: Callable[[str], Deed], django_assert_max_num_queries: Any
) -> None:
    for number in range(12):
        place(f"A-{number}")
    with django_assert_max_num_queries(13):
        assert staff.get("/admin/deeds/deed/").status_code == 200
    with django_assert_max_num_queries(13):
        assert staff.get("/admin/deeds/deed/?status__exact=queued").status_code == 200
