"""Whether PDFs are still there, unchanged; and what lies there that is nobody's."""

import datetime as dt
import io
import os
from typing import Any

import pytest
from django.core import mail
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from billing import periods
from deeds import charges, looks, ordering, storage, sweeping, tasks, verifying
from deeds.models import Deed, StorageFinding
from keys.models import Partner
from partner_api.ops import watching
from tests.conftest import MainApi
from tests.deeds.kept import Complete, run
from tests.deeds.test_line import fill


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
        watching.watch()
    found = {one.deed_id: one.kind for one in StorageFinding.objects.filter(resolved_at=None)}
    assert found == {missing.pk: "missing", changed.pk: "differs"}
    assert len(mail.outbox) == 1
    assert "pdfs_lost: PDFs were found missing or damaged" in mail.outbox[0].body
    assert "/admin/deeds/storagefinding/" in mail.outbox[0].body
    assert [r.levelname for r in caplog.records if "pdf_" in str(r.msg)].count("ERROR") == 2
    page = staff.get("/admin/deeds/storagefinding/").content.decode()
    assert str(missing) in page
    assert str(right) not in page
    storage.keep(missing, lost)
    storage.keep(changed, kept, replace=True)
    out = io.StringIO()
    call_command("check_storage", "--all", stdout=out)
    assert out.getvalue().startswith("right 3, missing 0")
    assert not StorageFinding.objects.filter(resolved_at=None).exists()
    watching.watch()
    assert "over: pdfs_lost" in mail.outbox[1].subject


def test_every_pdf_has_its_turn(complete: Complete) -> None:
    deeds = [complete(f"O-{number}") for number in range(5)]
    storage.remove(deeds[-1])
    reports = [verifying.verify(limit=2) for _ in range(3)]
    assert [report.right + report.missing for report in reports] == [2, 2, 2]
    assert sum(report.missing for report in reports) == 1


def test_a_storage_that_is_away_is_no_finding(complete: Complete, deed_files: Any) -> None:
    complete("O-1")
    complete("O-2")
    deed_files.rename(deed_files.with_name("aside"))
    deed_files.touch()
    assert verifying.verify(limit=None).unread == 2
    with pytest.raises(CommandError):
        call_command("check_storage", stdout=io.StringIO())
    tasks.check_storage()
    assert not StorageFinding.objects.exists()


def test_a_pdf_that_alone_can_not_be_read_is_found_and_holds_up_no_other(
    complete: Complete, deed_files: Any
) -> None:
    unreadable, *others = (complete(f"O-{number}") for number in range(3))
    storage.remove(others[-1])
    _make_unreadable(deed_files, unreadable)
    first = verifying.verify(limit=2)
    assert (first.right, first.unreadable, first.unread) == (1, 1, 0)
    assert StorageFinding.objects.get().kind == "unreadable"
    assert "Is a directory" in StorageFinding.objects.get().detail
    assert verifying.verify(limit=1).missing == 1, "the next ones have their turn"
    with pytest.raises(CommandError, match="not as the deeds say"):
        call_command("check_storage", "--all", stdout=(out := io.StringIO()))
    assert out.getvalue().startswith("right 1, missing 1, another PDF 0, unreadable 1,")


def test_a_storage_of_which_nothing_can_be_read_is_no_finding(complete: Complete, deed_files: Any) -> None:
    deeds = [complete(f"O-{number}") for number in range(2)]
    for deed in deeds:
        _make_unreadable(deed_files, deed)
    assert verifying.verify(limit=5).unread == 2
    assert not StorageFinding.objects.exists()


def _make_unreadable(deed_files: Any, deed: Deed) -> None:
    """As a bad sector does, or a key at KMS that is disabled."""
    storage.remove(deed)
    (deed_files / deed.pdf_name).mkdir()


def test_a_pdf_that_was_deleted_as_agreed_is_no_finding(complete: Complete, settings: Any) -> None:
    complete(days_ago=31)
    settings.PDF_RETENTION_DAYS = 30
    tasks.delete_old_pdfs()
    assert verifying.verify(limit=None).is_clean


def test_a_pdf_that_was_deleted_while_it_was_asked_for_is_no_finding(
    complete: Complete, settings: Any
) -> None:
    asked = complete(days_ago=31)
    settings.PDF_RETENTION_DAYS = 30
    tasks.delete_old_pdfs()
    assert not verifying.note_missing(asked)
    assert not StorageFinding.objects.exists()


def test_orphans_are_told_and_deleted_but_not_young_ones_nor_work_in_progress(
    complete: Complete, place: Complete, deed_files: Any
) -> None:
    whole, failed, waiting = complete("WHOLE"), run(place("sandbox-400")), place("WAITING")
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


def test_each_orphan_is_told_once_however_many_there_are(
    db: None, deed_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "_CHUNK", 2)
    folder = deed_files / "deeds" / "00"
    folder.mkdir(parents=True)
    for number in range(5):
        (folder / f"stray-{number}.pdf").write_bytes(b"%PDF-stray")
    found = [one.name for one in verifying.orphans(older_than=dt.timedelta(0))]
    assert sorted(found) == [f"deeds/00/stray-{number}.pdf" for number in range(5)]


def test_an_orphan_that_a_deed_has_come_to_meanwhile_stays(place: Complete, main_api: MainApi) -> None:
    deed = run(place("sandbox-400"))
    storage.keep(deed, b"%PDF-left")
    (orphan,) = verifying.orphans(older_than=dt.timedelta(0))
    assert ordering.requeue(deed)
    assert not verifying.delete_orphan(orphan)
    assert storage.read(deed) is not None


def test_finding_work_uses_the_small_indexes(db: None) -> None:
    """At any number of deeds: each question has a partial index of its own."""
    now = timezone.now()
    with connection.cursor() as cursor:
        for other in ("seqscan", "bitmapscan", "sort"):
            cursor.execute(f"SET LOCAL enable_{other} = off")
        # In an empty table it costs no more than those that hold only what is looked for.
        cursor.execute("DROP INDEX deeds_newest_by_status")
    never, before = verifying.due(now)
    for rows, index in (
        (Deed.objects.outdated(now).order_by("completed_at"), "deeds_with_a_pdf_by_age"),
        (Deed.objects.half_deleted().order_by("completed_at"), "deeds_half_deleted"),
        (never, "deeds_with_a_pdf_by_check"),
        (before, "deeds_with_a_pdf_by_check"),
        (charges.live_completed(now, now), "deeds_live_completed"),
        (looks.of_status("rendering"), "deeds_rendering"),
    ):
        plan = rows[:10].explain()
        assert index in plan
        assert "Sort" not in plan
        assert "Disabled: true" not in plan
    assert "(status = 'queued'" not in (plan := looks.of_status("queued").explain())
    assert "deeds_by_hint" in plan or "deeds_in_line" in plan


def test_a_pdf_that_was_never_looked_at_has_its_turn_first(complete: Complete) -> None:
    deeds = [complete(f"O-{number}") for number in range(3)]
    storage.remove(deeds[-1])
    Deed.objects.filter(pk=deeds[-1].pk).update(pdf_checked_at=None)
    assert verifying.verify(limit=1).missing == 1
    assert verifying.verify(limit=None).right == 2


def test_places_held_for_nothing_are_found_without_reading_history(acme: Partner) -> None:
    now = timezone.now()
    with connection.cursor() as cursor:
        for status, number in (("cancelled", 20_000), ("queued", 2_000)):
            fill(acme, number, prefix=f"{status}-")
            cursor.execute(
                "UPDATE external_deeds SET status = %s WHERE order_id LIKE %s", [status, f"{status}-%"]
            )
        period = periods.at(acme, now)
        type(period).objects.filter(pk=period.pk).update(deeds_reserved=2_002)
        cursor.execute(
            "INSERT INTO quota_reservations (source_id, period_id, item, amount, created_at)"
            " SELECT id, %s, 'deed', 0, now() - interval '1 hour' FROM external_deeds"
            " WHERE status = 'queued' OR order_id IN ('cancelled-1', 'cancelled-2')",
            [period.pk],
        )
        cursor.execute("ANALYZE external_deeds")
        cursor.execute("ANALYZE quota_reservations")
        cursor.execute("SET LOCAL enable_seqscan = off")
    found = sweeping.held_for_nothing(now)
    assert "Seq Scan on external_deeds" not in found.explain()
    assert len(found) == 2
    with CaptureQueriesContext(connection) as queries:
        sweeping._release_places(now)
    assert len(queries) <= 1 + 2 * 3, "one look, whatever the number of orders under way"
