"""How long PDFs are kept: deleted when agreed, held when asked, never made again."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.utils import timezone

from deeds import keeping, storage, tasks
from deeds.models import Deed
from deeds.stores import StoreUnavailable
from keys.audit import Actor
from keys.models import AuditEntry
from tests.api import Api
from tests.conftest import MainApi
from tests.deeds.kept import Complete, Orders, get, link_of
from tests.staff import STALE, seen

SYSTEM = Actor.system("test")


def test_without_a_retention_pdfs_stay(complete: Complete) -> None:
    deed = complete(days_ago=4000)
    tasks.delete_old_pdfs()
    deed.refresh_from_db()
    assert deed.has_pdf


def test_a_pdf_is_deleted_when_its_time_is_up_and_the_facts_stay(
    complete: Complete, api: Api, client: Client, settings: Any
) -> None:
    old, young = complete("OLD", days_ago=31), complete("YOUNG", days_ago=29)
    url = link_of(api, old)
    settings.PDF_RETENTION_DAYS = 30
    tasks.delete_old_pdfs()
    assert storage.read(old) is None
    assert storage.read(young) is not None
    answer = api.get(f"/v2/deeds/{old.pk}").json()
    assert answer["status"] == "completed"
    assert answer["order"]["grantees"] == [{"name": "BOB JONES"}]
    assert answer["pdf"]["deleted_at"]
    assert (answer["pdf"]["url"], answer["pdf"]["expires_at"]) == (None, None)
    assert answer["pdf"]["sha256"] == old.pdf_sha256
    for gone in (api.get(f"/v2/deeds/{old.pk}/pdf"), client.get(url)):
        assert (gone.status_code, gone.json()["code"]) == (410, "pdf_deleted")
    assert api.get(f"/v1/deeds/{old.pk}").json()["pdf_url"] is None
    assert get(client, link_of(api, young)).status_code == 200


def test_a_deleted_pdf_is_not_made_again(
    complete: Complete, api: Api, order: Orders, settings: Any, main_api: MainApi
) -> None:
    deed = complete(days_ago=31)
    settings.PDF_RETENTION_DAYS = 30
    tasks.delete_old_pdfs()
    again = api.post("/v2/deeds", order())
    assert (again.status_code, again.json()["id"]) == (200, str(deed.pk))
    assert len(main_api.calls) == 1


def test_a_deletion_that_was_interrupted_is_taken_up(
    complete: Complete, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    deeds = [complete(f"O-{number}", days_ago=31) for number in range(3)]
    settings.PDF_RETENTION_DAYS = 30
    remove = storage.remove

    def away(deed: Deed) -> None:
        if deed.pk == deeds[1].pk:
            raise StoreUnavailable
        remove(deed)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "remove", away)
        patch.setattr(storage, "check", lambda: away(deeds[1]))
        tasks.delete_old_pdfs()
    assert storage.read(deeds[1]) is not None
    assert keeping.delete_outdated() == 2
    assert [storage.read(deed) for deed in deeds] == [None] * 3
    assert keeping.delete_outdated() == 0


def test_a_pdf_that_can_not_be_deleted_holds_up_no_other(
    complete: Complete, settings: Any, deed_files: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stuck, other = (complete(f"O-{number}", days_ago=31 + number) for number in (1, 0))
    storage.remove(stuck)
    (deed_files / stuck.pdf_name).mkdir()
    settings.PDF_RETENTION_DAYS = 30
    tasks.delete_old_pdfs()
    assert storage.read(other) is None
    other.refresh_from_db()
    assert other.pdf_name == ""
    assert [str(stuck.pk) in str(r.msg) for r in caplog.records if r.levelname == "ERROR"] == [True]
    (deed_files / stuck.pdf_name).rmdir()
    assert keeping.delete_outdated() == 1, "it has its turn again"


def test_holds_are_marked_though_nothing_can_be_deleted(
    complete: Complete, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a rule of the storage's own would delete what a hold should keep."""
    complete("OLD", days_ago=31)
    held = complete("HELD")
    keeping.hold(held, SYSTEM, "lawsuit")
    settings.PDF_RETENTION_DAYS = 30
    marked: list[Deed] = []

    def refuses(*_: Any) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(storage, "remove", refuses)
    monkeypatch.setattr(storage, "check", refuses)
    monkeypatch.setattr(storage, "mark_held", marked.append)
    tasks.delete_old_pdfs()
    assert marked == [held]


def test_many_holds_that_can_not_be_marked_keep_no_other_from_it(
    complete: Complete, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = [complete(f"O-{number}") for number in range(7)]
    for deed in held:
        keeping.hold(deed, SYSTEM, "lawsuit")
    marked: list[Deed] = []

    def marks_one(deed: Deed) -> None:
        if deed != held[-1]:
            raise StoreUnavailable
        marked.append(deed)

    monkeypatch.setattr(storage, "mark_held", marks_one)
    keeping.delete_outdated()
    assert marked == [held[-1]]


def test_a_storage_that_is_away_is_not_asked_for_each_hold(
    complete: Complete, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        keeping.hold(complete(f"O-{number}"), SYSTEM, "lawsuit")
    asked: list[Deed] = []

    def away(*deeds: Deed) -> None:
        asked.extend(deeds)
        raise StoreUnavailable

    monkeypatch.setattr(storage, "mark_held", away)
    monkeypatch.setattr(storage, "check", away)
    keeping.delete_outdated()
    assert len(asked) == 1, "each would wait for its timeouts"


def test_a_hold_that_can_not_be_marked_stops_nothing(
    complete: Complete, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, *held = (complete(f"O-{number}", days_ago=31) for number in range(3))
    settings.PDF_RETENTION_DAYS = 30
    asked: list[Deed] = []

    def refuses(deed: Deed) -> None:
        asked.append(deed)
        raise StoreUnavailable

    monkeypatch.setattr(storage, "mark_held", refuses)
    for deed in held:
        keeping.hold(deed, SYSTEM, "lawsuit")
    asked.clear()
    assert keeping.delete_outdated() == 1
    assert storage.read(old) is None
    assert len(asked) == 2, "one refusal does not keep the others from being marked"


def test_many_are_deleted_in_batches(
    complete: Complete, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "BATCH", 2)
    for number in range(5):
        complete(f"O-{number}", days_ago=31)
    settings.PDF_RETENTION_DAYS = 30
    assert keeping.delete_outdated() == 5


def test_a_deed_that_is_just_being_corrected_is_left_to_the_next_run(
    complete: Complete, settings: Any, transactional_db: None
) -> None:
    settings.PDF_RETENTION_DAYS = 30
    first, second = (complete(order_id, days_ago=31) for order_id in ("A", "B"))

    def beside() -> int | None:
        try:
            return keeping.delete_outdated()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        Deed.objects.filter(pk=second.pk).update(superseded_at=timezone.now())
        assert pool.submit(beside).result(10) == 1
    assert Deed.objects.exclude(pdf_deleted_at=None).get() == first
    assert keeping.delete_outdated() == 1


def test_a_hold_keeps_the_pdf_until_it_ends(complete: Complete, settings: Any) -> None:
    deed = complete(days_ago=31)
    settings.PDF_RETENTION_DAYS = 30
    assert keeping.hold(deed, SYSTEM, "lawsuit")
    assert not keeping.hold(deed, SYSTEM, "again")
    keeping.delete_outdated()
    assert storage.read(deed) is not None
    assert keeping.release(deed, SYSTEM, "settled")
    assert not keeping.release(deed, SYSTEM, "again")
    keeping.delete_outdated()
    assert storage.read(deed) is None
    assert [entry.action for entry in AuditEntry.objects.order_by("id")] == ["deed.held", "deed.released"]


def test_a_hold_that_comes_too_late_is_refused(complete: Complete, settings: Any) -> None:
    deed = complete(days_ago=31)
    settings.PDF_RETENTION_DAYS = 30
    keeping.delete_outdated()
    assert not keeping.hold(deed, SYSTEM, "too late")
    assert not AuditEntry.objects.exists()


def test_the_database_refuses_what_retention_must_never_do(complete: Complete) -> None:
    deed = complete()
    keeping.hold(deed, SYSTEM, "lawsuit")
    for change, constraint in (
        ({"pdf_deleted_at": timezone.now()}, "deed_on_hold_keeps_its_pdf"),
        ({"hold_reason": ""}, "deed_on_hold_keeps_its_pdf"),
        ({"pdf_name": ""}, "deed_has_a_pdf_once_completed"),
        ({"pdf_sha256": ""}, "deed_has_a_pdf_once_completed"),
    ):
        with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
            Deed.objects.filter(pk=deed.pk).update(**change)


def test_staff_hold_and_release_with_a_reason(complete: Complete, staff: Client) -> None:
    deed = complete()
    page = f"/admin/deeds/deed/{deed.pk}"
    url = f"{page}/hold/"
    assert "will not be deleted while the hold is on" in staff.get(url).content.decode()
    assert "This field is required" in staff.post(url, {"reason": " "}).content.decode()
    deed.refresh_from_db()
    assert deed.held_at is None
    assert staff.post(url, {"reason": "Smith v. Jones"}).status_code == 302
    deed.refresh_from_db()
    assert deed.hold_reason == "Smith v. Jones"
    shown = staff.get(f"{page}/change/").content.decode()
    assert "Smith v. Jones" in shown
    assert url not in shown
    assert f"{page}/release/" in shown
    assert "is on hold already" in staff.post(url, {"reason": "once more"}).content.decode()
    assert "Smith v. Jones" in staff.get(f"{page}/release/").content.decode()
    assert staff.post(f"{page}/release/", {"reason": "settled"}).status_code == 302
    assert "There is no hold" in staff.post(f"{page}/release/", {"reason": "again"}).content.decode()
    held, released = AuditEntry.objects.filter(action__startswith="deed.").order_by("id")
    assert (held.actor, held.action, held.reason) == ("root", "deed.held", "Smith v. Jones")
    assert (released.action, released.target_id, released.partner_id) == (
        "deed.released",
        str(deed.pk),
        deed.partner_id,
    )


def test_a_page_that_was_opened_before_another_acted_ends_no_hold(complete: Complete, staff: Client) -> None:
    deed = complete()
    page = f"/admin/deeds/deed/{deed.pk}"
    to_hold = seen(staff, f"{page}/hold/")
    assert keeping.hold(deed, SYSTEM, "Smith v. Jones")
    late = staff.post(f"{page}/hold/", {"reason": "Doe v. Roe", "seen": to_hold})
    assert STALE in late.content.decode()
    to_release = seen(staff, f"{page}/release/")
    assert keeping.release(deed, SYSTEM, "settled")
    assert keeping.hold(deed, SYSTEM, "Doe v. Roe")
    late = staff.post(f"{page}/release/", {"reason": "Smith v. Jones is settled", "seen": to_release})
    assert STALE in late.content.decode()
    deed.refresh_from_db()
    assert deed.hold_reason == "Doe v. Roe"
    actions = AuditEntry.objects.filter(action__startswith="deed.").order_by("id")
    assert list(actions.values_list("action", "reason")) == [
        ("deed.held", "Smith v. Jones"),
        ("deed.released", "settled"),
        ("deed.held", "Doe v. Roe"),
    ]


def test_another_hold_than_the_one_that_was_read_is_not_ended(complete: Complete) -> None:
    deed = complete()
    assert keeping.hold(deed, SYSTEM, "Smith v. Jones")
    read = Deed.objects.get(pk=deed.pk)
    assert keeping.release(deed, SYSTEM, "settled")
    assert keeping.hold(deed, SYSTEM, "Doe v. Roe")
    assert not keeping.release(read, SYSTEM, "settled")
    deed.refresh_from_db()
    assert deed.hold_reason == "Doe v. Roe"
