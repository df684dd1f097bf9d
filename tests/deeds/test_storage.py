"""PDFs in a folder: written whole, once, or not at all; and settings of a storage that can't work."""

import datetime as dt
import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from deeds import storage, tasks
from deeds.checks import storage_is_usable
from deeds.models import Deed, DeedDownload, StorageFinding
from deeds.stores import local
from partner_api.ops.checks import refuse_insecure_start
from tests.api import Api
from tests.conftest import MainApi
from tests.deeds.kept import Complete, get, link_of, run


def test_it_works_and_no_draft_is_left(complete: Complete, deed_files: Any) -> None:
    deed = complete()
    (file,) = [path for path in deed_files.rglob("*") if path.is_file()]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == deed.pdf_sha256
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_a_new_folder_is_on_the_disk_before_its_pdf_counts_as_kept(
    complete: Complete, deed_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a machine that loses its power loses the folder, and a completed deed's PDF with it."""
    flushed: list[int] = []
    fsync = os.fsync

    def noted(number: int) -> None:
        flushed.append(os.fstat(number).st_ino)
        fsync(number)

    monkeypatch.setattr(os, "fsync", noted)
    folder = (deed_files / complete().pdf_name).parent
    folders = (folder, folder.parent, deed_files, deed_files.parent)
    assert {path.stat().st_ino for path in folders} <= set(flushed)
    assert {path.stat().st_mode & 0o777 for path in folders[:3]} == {0o700}


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
    tasks.serve(str(deed.pk))
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


def test_a_lost_pdf_that_is_asked_for_is_found_before_its_turn(
    complete: Complete, api: Api, client: Client
) -> None:
    deed = complete()
    url = link_of(api, deed)
    storage.remove(deed)
    for _ in range(2):
        assert get(client, url).status_code == 404
    finding = StorageFinding.objects.get(resolved_at=None)
    assert (finding.deed, finding.kind) == (deed, "missing")
    assert not DeedDownload.objects.exists()


def test_a_full_disk_is_told_by_readyz(
    complete: Complete, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete()
    monkeypatch.setattr(local, "_ROOM_BYTES", 1 << 60)
    shown = client.get("/readyz").json()
    assert (shown["status"], shown["dependencies"]["storage"]["status"]) == ("degraded", "unavailable")


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
