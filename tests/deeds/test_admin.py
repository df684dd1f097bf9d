"""Deeds in the admin."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from billing.models import LedgerEntry
from deeds import hints, storage, tasks, verifying
from deeds.models import Deed, StorageFinding
from deeds.signals import deed_settled
from keys.models import AuditEntry, Partner
from tests.api import Api
from tests.conftest import MainApi
from tests.deeds.kept import get, link_of
from tests.staff import hire, log_in

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
    tasks.serve(str(deed.pk))
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
    tasks.serve(str(deed.pk))
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
    tasks.serve(str(deed.pk))
    assert place("sandbox-400") != deed
    answer = staff.post(f"/admin/deeds/deed/{deed.pk}/requeue/", {"reason": "x"})
    assert "taken over this order" in answer.content.decode()
    deed.refresh_from_db()
    assert deed.status == "failed"


def test_a_queued_deed_is_not_queued_again(staff: Client, place: Callable[[str], Deed]) -> None:
    deed = place("A-1")
    answer = staff.post(f"/admin/deeds/deed/{deed.pk}/requeue/", {"reason": "x"})
    assert "Only a failed deed" in answer.content.decode()


def test_failed_deeds_are_queued_again_together(
    staff: Client, place: Callable[[str], Deed], main_api: MainApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "send", lambda deed_id: None)
    failed = [place(f"F-{number}") for number in range(3)]
    Deed.objects.update(status="failed", failure_code="main_api_unavailable")
    taken, waiting = place("F-0"), place("W-1")
    form = {
        "action": "requeue_selected",
        "_selected_action": [str(deed.pk) for deed in (*failed, waiting)],
        "select_across": "0",
    }
    page = staff.post("/admin/deeds/deed/", form).content.decode()
    assert "3 failed and can be queued again" in page
    assert page.count('name="_selected_action"') == 4
    assert 'name="reason"' in staff.post("/admin/deeds/deed/", {**form, "reason": " "}).content.decode()
    assert Deed.objects.filter(status="queued").count() == 2, "without a reason nothing is done"
    done = staff.post("/admin/deeds/deed/", {**form, "reason": "the outage is over"}, follow=True)
    assert "Queued again: 2." in (told := done.content.decode())
    assert "Passed over, because another deed has taken over the order: 1." in told
    assert set(Deed.objects.filter(status="failed")) == {failed[0]}
    assert Deed.objects.get(pk=taken.pk).status == "queued"
    entries = AuditEntry.objects.filter(action="deed.requeued")
    assert {(entry.target_id, entry.reason) for entry in entries} == {
        (str(deed.pk), "the outage is over") for deed in failed[1:]
    }


def test_where_none_failed_no_reason_is_asked_for(staff: Client, place: Callable[[str], Deed]) -> None:
    form = {"action": "requeue_selected", "_selected_action": [str(place("W-1").pk)], "select_across": "0"}
    page = staff.post("/admin/deeds/deed/", form, follow=True).content.decode()
    assert "None of these deeds failed" in page
    assert 'name="reason"' not in page


def test_why_a_deed_failed_stands_apart_from_what_is_asked(
    staff: Client, place: Callable[[str], Deed]
) -> None:
    deed = place("F-1")
    Deed.objects.update(status="failed", failure_code="main_api_rejected", failure_message="County is wrong")
    page = staff.get(f"/admin/deeds/deed/{deed.pk}/requeue/").content.decode()
    assert "failed (“County is wrong”). It is given" in page
    assert "Legal hold…" in staff.get(f"/admin/deeds/deed/{deed.pk}/change/").content.decode()


def test_who_may_only_read_queues_none_again(place: Callable[[str], Deed], quick_passwords: None) -> None:
    deed = place("F-1")
    Deed.objects.update(status="failed", failure_code="x")
    reader = log_in(hire("reader", "support"))
    assert "requeue_selected" not in reader.get("/admin/deeds/deed/").content.decode()
    form = {"action": "requeue_selected", "_selected_action": [str(deed.pk)], "reason": "x"}
    reader.post("/admin/deeds/deed/", form)
    assert Deed.objects.get().status == "failed"


def test_a_queued_deed_is_cancelled_as_by_its_partner(
    staff: Client, place: Callable[[str], Deed], api: Api, order: Orders
) -> None:
    deed = place("C-1")
    told: list[str] = []

    def receiver(deed: Deed, **_: Any) -> None:
        told.append(deed.status)

    url = f"/admin/deeds/deed/{deed.pk}/cancel/"
    assert url in staff.get(f"/admin/deeds/deed/{deed.pk}/change/").content.decode()
    assert staff.get(url).status_code == 200
    assert staff.post(url, {"reason": ""}).status_code == 200
    assert Deed.objects.get().status == "queued"
    deed_settled.connect(receiver)
    try:
        assert staff.post(url, {"reason": "asked for by phone"}).status_code == 302
    finally:
        deed_settled.disconnect(receiver)
    deed.refresh_from_db()
    assert (deed.status, deed.timeline[-1]["detail"], told) == (
        "cancelled",
        "cancelled_by_staff",
        ["cancelled"],
    )
    entry = AuditEntry.objects.get(action="deed.cancelled")
    assert (entry.target_id, entry.reason) == (str(deed.pk), "asked for by phone")
    assert "only a queued one" in staff.post(url, {"reason": "again"}).content.decode()
    assert AuditEntry.objects.filter(action="deed.cancelled").count() == 1
    assert place("C-1") != deed, "the order is free again"


@pytest.mark.parametrize("damage", ["lost", "another"])
def test_a_pdf_that_the_storage_lost_is_rendered_again(
    staff: Client, place: Callable[[str], Deed], main_api: MainApi, api: Api, client: Client, damage: str
) -> None:
    deed = place("R-1")
    tasks.serve(str(deed.pk))
    deed.refresh_from_db()
    if damage == "lost":
        storage.remove(deed)
    else:
        storage.keep(deed, b"%PDF-another", replace=True)
    Deed.objects.update(pdf_sha256="1" * 64)
    verifying.verify(limit=None)
    told: list[str] = []

    def receiver(deed: Deed, **_: Any) -> None:
        told.append(deed.status)

    deed_settled.connect(receiver)
    url = f"/admin/deeds/deed/{deed.pk}/render_again/"
    assert staff.post(url, {"reason": ""}).status_code == 200
    assert len(main_api.calls) == 1
    answer = staff.post(url, {"reason": "lost with the disk"})
    deed_settled.disconnect(receiver)
    assert answer.status_code == 302, answer.content.decode()
    deed.refresh_from_db()
    assert hashlib.sha256(storage.read(deed) or b"").hexdigest() == deed.pdf_sha256
    assert (deed.status, deed.timeline[-1]["detail"]) == ("completed", "rendered_again")
    assert told == [], "it was announced when it was made"
    assert LedgerEntry.objects.filter(source_id=str(deed.pk)).count() == 1, "and charged then"
    assert not StorageFinding.objects.filter(resolved_at=None).exists()
    entry = AuditEntry.objects.get(action="deed.rendered_again")
    assert (entry.before["pdf_sha256"], entry.after["pdf_sha256"]) == ("1" * 64, deed.pdf_sha256)
    assert entry.reason == "lost with the disk"
    assert verifying.verify(limit=None).is_clean
    assert get(client, link_of(api, deed)).status_code == 200


def test_a_pdf_that_is_there_is_not_rendered_again(
    staff: Client, place: Callable[[str], Deed], main_api: MainApi
) -> None:
    deed, waiting = place("R-1"), place("R-2")
    tasks.serve(str(deed.pk))
    for one, says in ((deed, "is there as it was stored"), (waiting, "Only a completed deed")):
        answer = staff.post(f"/admin/deeds/deed/{one.pk}/render_again/", {"reason": "x"})
        assert says in answer.content.decode()
    assert len(main_api.calls) == 1
    assert not AuditEntry.objects.filter(action="deed.rendered_again").exists()


def test_a_renderer_that_is_away_changes_nothing(
    staff: Client, place: Callable[[str], Deed], main_api: MainApi, settings: Any
) -> None:
    deed = place("R-1")
    tasks.serve(str(deed.pk))
    deed.refresh_from_db()
    storage.remove(deed)
    settings.MAIN_API_BASE_URL = "http://127.0.0.1:9"
    answer = staff.post(f"/admin/deeds/deed/{deed.pk}/render_again/", {"reason": "x"})
    assert "The renderer made no deed (main_api_unavailable" in answer.content.decode()
    assert Deed.objects.get().timeline == deed.timeline


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
