"""Keeping PDFs: in a folder, for how long, whether they are still there, and who was given them."""

import datetime as dt
import errno
import hashlib
import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core import mail
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.utils import timezone

from deeds import keeping, storage, tasks, verifying
from deeds.checks import storage_is_usable
from deeds.models import Deed, DeedDownload, StorageFinding
from keys.audit import Actor
from keys.models import AuditEntry
from partner_api.ops.checks import refuse_insecure_start
from tests.api import Api
from tests.conftest import MainApi

Orders = Callable[..., dict[str, Any]]
Complete = Callable[..., Deed]
SYSTEM = Actor.system("test")


@pytest.fixture
def place(api: Api, order: Orders) -> Complete:
    def make(order_id: str = "ORD-123") -> Deed:
        return Deed.objects.get(pk=api.post("/v2/deeds", order(order_id=order_id)).json()["id"])

    return make


@pytest.fixture
def complete(place: Complete, main_api: MainApi) -> Complete:
    def make(order_id: str = "ORD-123", days_ago: int = 0) -> Deed:
        deed = run(place(order_id))
        if days_ago:
            at = timezone.now() - dt.timedelta(days=days_ago)
            Deed.objects.filter(pk=deed.pk).update(completed_at=at, pdf_checked_at=at)
        return deed

    return make


def run(deed: Deed) -> Deed:
    tasks.render(str(deed.pk))
    deed.refresh_from_db()
    return deed


def link_of(api: Api, deed: Deed) -> str:
    url: str = api.get(f"/v2/deeds/{deed.pk}").json()["pdf"]["url"]
    return url.removeprefix("http://testserver")


def get(client: Client, path: str, **headers: str) -> Any:
    return client.get(path, headers=headers)


# --- a folder ---------------------------------------------------------------------------------


def test_it_works_and_no_draft_is_left(complete: Complete, deed_files: Any) -> None:
    deed = complete()
    (file,) = [path for path in deed_files.rglob("*") if path.is_file()]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == deed.pdf_sha256
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_of_many_writers_the_first_one_stays(place: Complete, deed_files: Any) -> None:
    deed = place()
    contents = [f"%PDF-{number}".encode() for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(lambda content: storage.keep(deed, content), contents))
    assert kept.count(True) == 1
    assert storage.read(deed) == contents[kept.index(True)]
    assert len([path for path in deed_files.rglob("*") if path.is_file()]) == 1


def test_a_worker_that_is_late_changes_nothing(
    place: Complete, main_api: MainApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease runs out while it stores; another makes the deed; then its own, other PDF arrives."""
    deed, keep = place(), storage.keep
    late: list[bool] = []

    def slowly(of: Deed, content: bytes, **how: Any) -> bool:
        monkeypatch.setattr(storage, "keep", keep)
        Deed.objects.update(lease_expires_at=timezone.now() - dt.timedelta(seconds=1))
        tasks.sweep()
        run(deed)
        late.append(keep(of, content.replace(b"%PDF-1.4", b"%PDF-1.5"), **how))
        return late[0]

    monkeypatch.setattr(storage, "keep", slowly)
    tasks.render(str(deed.pk))
    deed.refresh_from_db()
    assert late == [False]
    assert [entry["status"] for entry in deed.timeline].count("completed") == 1
    assert hashlib.sha256(storage.read(deed) or b"").hexdigest() == deed.pdf_sha256
    assert (storage.read(deed) or b"").startswith(b"%PDF-1.4")


def test_a_full_disk_leaves_nothing_half_written_and_the_deed_waits(
    place: Complete, main_api: MainApi, deed_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    deed = place()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        run(deed)
    assert (deed.status, deed.timeline[-1]["detail"]) == ("queued", "storage_unavailable")
    assert [path for path in deed_files.rglob("*") if path.is_file()] == []
    Deed.objects.update(next_attempt_at=timezone.now())
    assert run(deed).status == "completed"


def test_a_folder_that_is_gone_is_told_by_readyz_and_by_the_link(
    complete: Complete, api: Api, client: Client, deed_files: Any
) -> None:
    url = link_of(api, complete())
    deed_files.rename(deed_files.with_name("aside"))
    deed_files.touch()
    answer = client.get(url)
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
    assert answer["Retry-After"]
    assert client.get("/readyz").json()["dependencies"]["storage"]["status"] == "unavailable"
    assert not DeedDownload.objects.exists()
    deed_files.unlink()
    deed_files.with_name("aside").rename(deed_files)
    assert get(client, url).status_code == 200
    assert client.get("/readyz").json()["dependencies"]["storage"]["status"] == "ok"


# --- retention --------------------------------------------------------------------------------


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
            raise storage.StoreUnavailable
        remove(deed)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "remove", away)
        tasks.delete_old_pdfs()
    assert storage.read(deeds[1]) is not None
    assert keeping.delete_outdated() == 2
    assert [storage.read(deed) for deed in deeds] == [None] * 3
    assert keeping.delete_outdated() == 0


def test_many_are_deleted_in_batches(
    complete: Complete, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "BATCH", 2)
    for number in range(5):
        complete(f"O-{number}", days_ago=31)
    settings.PDF_RETENTION_DAYS = 30
    assert keeping.delete_outdated() == 5


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
    url = f"/admin/deeds/deed/{deed.pk}/hold/"
    assert "Put it on hold" in staff.get(url).content.decode()
    assert "Give the reason" in staff.post(url, {"reason": " "}).content.decode()
    deed.refresh_from_db()
    assert deed.held_at is None
    assert staff.post(url, {"reason": "Smith v. Jones"}).status_code == 302
    deed.refresh_from_db()
    assert deed.hold_reason == "Smith v. Jones"
    assert "Smith v. Jones" in staff.get(f"/admin/deeds/deed/{deed.pk}/change/").content.decode()
    staff.post(url, {"reason": "settled"})
    held, released = AuditEntry.objects.filter(action__startswith="deed.").order_by("id")
    assert (held.actor, held.action, held.reason) == ("root", "deed.held", "Smith v. Jones")
    assert (released.action, released.target_id, released.partner_id) == (
        "deed.released",
        str(deed.pk),
        deed.partner_id,
    )


# --- integrity --------------------------------------------------------------------------------


def test_what_is_missing_or_changed_is_found_told_once_and_resolved(
    complete: Complete, settings: Any, caplog: pytest.LogCaptureFixture, staff: Client
) -> None:
    settings.STAFF_EMAILS = ["ops@example.com"]
    right, missing, changed = (complete(name) for name in ("RIGHT", "MISSING", "CHANGED"))
    lost = storage.read(missing)
    kept = storage.read(changed)
    assert lost is not None
    assert kept is not None
    storage.remove(missing)
    storage.keep(changed, b"another file", replace=True)
    for _ in range(2):
        with pytest.raises(CommandError, match="not as the deeds say"):
            call_command("check_storage", "--all", stdout=io.StringIO())
    found = {one.deed_id: one.kind for one in StorageFinding.objects.filter(resolved_at=None)}
    assert found == {missing.pk: "missing", changed.pk: "differs"}
    assert len(mail.outbox) == 1
    assert str(missing.pk) in mail.outbox[0].body
    assert str(right.pk) not in mail.outbox[0].body
    assert [r.levelname for r in caplog.records if "pdf_" in str(r.msg)].count("ERROR") == 2
    assert str(missing) in staff.get("/admin/deeds/storagefinding/").content.decode()
    storage.keep(missing, lost)
    storage.keep(changed, kept, replace=True)
    out = io.StringIO()
    call_command("check_storage", "--all", stdout=out)
    assert out.getvalue().startswith("right 3, missing 0")
    assert not StorageFinding.objects.filter(resolved_at=None).exists()


def test_every_pdf_has_its_turn(complete: Complete) -> None:
    deeds = [complete(f"O-{number}") for number in range(5)]
    storage.remove(deeds[-1])
    reports = [verifying.verify(limit=2) for _ in range(3)]
    assert [report.right + report.missing for report in reports] == [2, 2, 2]
    assert sum(report.missing for report in reports) == 1


def test_a_storage_that_is_away_is_no_finding(complete: Complete, deed_files: Any) -> None:
    complete()
    deed_files.rename(deed_files.with_name("aside"))
    deed_files.touch()
    with pytest.raises(CommandError):
        call_command("check_storage", stdout=io.StringIO())
    tasks.check_storage()
    assert not StorageFinding.objects.exists()


def test_a_pdf_that_was_deleted_as_agreed_is_no_finding(complete: Complete, settings: Any) -> None:
    complete(days_ago=31)
    settings.PDF_RETENTION_DAYS = 30
    tasks.delete_old_pdfs()
    assert verifying.verify(limit=None).is_clean


def test_staff_are_told_once_mail_works_again(
    complete: Complete, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.STAFF_EMAILS = ["ops@example.com"]
    storage.remove(complete())

    def refused(*_: Any) -> None:
        raise ConnectionRefusedError

    with monkeypatch.context() as patch:
        patch.setattr(verifying, "send_mail", refused)
        verifying.verify(limit=None)
    assert mail.outbox == []
    verifying.verify(limit=None)
    assert len(mail.outbox) == 1


def test_orphans_are_told_and_deleted_but_not_young_ones_nor_work_in_progress(
    complete: Complete, place: Complete, deed_files: Any
) -> None:
    whole, waiting, failed = complete("WHOLE"), place("WAITING"), run(place("sandbox-400"))
    for deed in (waiting, failed):
        storage.keep(deed, b"%PDF-left")
    stray = deed_files / "deeds" / "00" / "stray.pdf"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"%PDF-stray")
    out = io.StringIO()
    call_command("storage_orphans", stdout=out)
    assert out.getvalue() == "orphans 0, deleted 0\n", "all are young"
    yesterday = timezone.now().timestamp() - 25 * 3600
    for path in deed_files.rglob("*.pdf"):
        os.utime(path, (yesterday, yesterday))
    out = io.StringIO()
    call_command("storage_orphans", stdout=out)
    assert "stray.pdf" in out.getvalue()
    assert str(failed.pk) in out.getvalue()
    assert out.getvalue().endswith("orphans 2, deleted 0\n")
    call_command("storage_orphans", "--delete", stdout=out)
    assert out.getvalue().endswith("orphans 2, deleted 2\n")
    assert not stray.exists()
    assert storage.read(failed) is None
    assert storage.read(whole) is not None
    assert storage.read(waiting) is not None


# --- the log of downloads ---------------------------------------------------------------------


def test_each_download_is_logged_with_who_when_and_from_where(
    complete: Complete, api: Api, client: Client, staff: Client
) -> None:
    deed = complete()
    asked = api.get(f"/v2/deeds/{deed.pk}/pdf", X_Request_ID="asked-1")
    get(client, asked["Location"].removeprefix("http://testserver"), X_Request_ID="used-1", Range="bytes=0-9")
    staff.get(f"/admin/deeds/deed/{deed.pk}/pdf/")
    rows = [
        (one.kind, one.who, one.address, one.status, one.asked_range)
        for one in DeedDownload.objects.filter(deed=deed, partner=deed.partner).order_by("id")
    ]
    assert rows == [
        ("key", api.key.prefix, "127.0.0.1", 302, ""),
        ("link", "", "127.0.0.1", 200, "bytes=0-9"),
        ("staff", "root", "127.0.0.1", 302, ""),
    ]
    ids = DeedDownload.objects.order_by("id").values_list("request_id", flat=True)
    assert list(ids)[:2] == ["asked-1", "used-1"]
    page = staff.get(f"/admin/deeds/deed/{deed.pk}/change/").content.decode()
    assert api.key.prefix in page
    assert str(deed) in staff.get(f"/admin/deeds/deeddownload/?q={deed.pk}").content.decode()


def test_reading_a_deed_logs_nothing_and_costs_no_more(
    complete: Complete, api: Api, client: Client, nothing_is_due: None, django_assert_num_queries: Any
) -> None:
    deed = complete()
    with django_assert_num_queries(1):
        url = link_of(api, deed)
    assert client.head(url).status_code == 200
    assert client.get(f"{url}x").status_code == 404
    assert not DeedDownload.objects.exists()


def test_the_log_can_not_be_edited_by_staff(complete: Complete, api: Api, staff: Client) -> None:
    api.get(f"/v2/deeds/{complete().pk}/pdf")
    one = DeedDownload.objects.get()
    assert staff.get("/admin/deeds/deeddownload/add/").status_code == 403
    assert staff.post(f"/admin/deeds/deeddownload/{one.pk}/delete/", {"post": "yes"}).status_code == 403
    staff.post(f"/admin/deeds/deeddownload/{one.pk}/change/", {"who": "someone"})
    one.refresh_from_db()
    assert one.who == api.key.prefix


# --- settings ---------------------------------------------------------------------------------

S3 = {"STORAGE_BACKEND": "s3", "S3_BUCKET": "deeds"}


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"STORAGE_BACKEND": "ftp"}, "E050"),
        ({**S3, "S3_BUCKET": ""}, "E051"),
        ({**S3, "S3_SSE": ""}, "E052"),
        ({**S3, "S3_SSE": "AES256", "S3_KMS_KEY_ID": "k"}, "E052"),
        ({**S3, "S3_ENDPOINT_URL": "http://s3.example.com", "IS_PRODUCTION": True}, "E053"),
        ({**S3, "CLOUDFRONT_KEY_ID": "K1"}, "E054"),
        (
            {
                **S3,
                "CLOUDFRONT_DOMAIN": "cdn.example.com",
                "CLOUDFRONT_KEY_ID": "K1",
                "CLOUDFRONT_PRIVATE_KEY": "no key",
            },
            "E055",
        ),
        ({"PDF_RETENTION_DAYS": -1}, "E056"),
        ({"STORAGE_LINK_SECONDS": 0}, "E057"),
        ({"STORAGE_LINK_SECONDS": 8 * 24 * 3600}, "E057"),
    ],
)
def test_a_storage_that_can_not_work_is_refused(settings: Any, values: dict[str, Any], code: str) -> None:
    for name, value in values.items():
        setattr(settings, name, value)
    assert [error.id for error in storage_is_usable(None)] == [f"partner_api.{code}"]
    settings.IS_PRODUCTION = False
    if code != "E053":
        with pytest.raises(Exception, match=code):
            refuse_insecure_start()


def test_the_bucket_alone_is_enough(settings: Any) -> None:
    settings.STORAGE_BACKEND, settings.S3_BUCKET, settings.IS_PRODUCTION = "s3", "deeds", True
    assert storage_is_usable(None) == []


def test_finding_work_uses_the_small_indexes(db: None) -> None:
    """At any number of deeds: each question has a partial index of its own."""
    now = timezone.now()
    with connection.cursor() as cursor:
        for other in ("seqscan", "bitmapscan", "sort"):
            cursor.execute(f"SET LOCAL enable_{other} = off")
    for rows, index in (
        (Deed.objects.outdated(now).order_by("completed_at"), "deeds_with_a_pdf_by_age"),
        (Deed.objects.half_deleted().order_by("completed_at"), "deeds_half_deleted"),
        (Deed.objects.with_pdf().order_by("pdf_checked_at"), "deeds_with_a_pdf_by_check"),
    ):
        assert index in rows[:10].explain()
