"""Whether the storage still has what the rows say: each PDF is read back now and then, all in turn.

A PDF that is missing, another one, or can't be read while others can is a finding: a row, an error in the
log, a metric, and a word to staff (`looks.pdfs_lost`). A storage that can't be reached, or of which nothing
can be read, is none; the deeds are looked at by the next run.
"""

import datetime as dt
import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import structlog
from django.db.models import QuerySet
from django.utils import timezone

from deeds import storage
from deeds.metrics import PDFS_CHECKED
from deeds.models import Deed, StorageFinding
from deeds.stores import StoredObject, StoreUnavailable

log = structlog.get_logger(__name__)

_CHUNK: Final = 500
_EVENTS: Final = {"missing": "pdf_missing", "differs": "pdf_differs", "unreadable": "pdf_unreadable"}


@dataclass
class Report:
    """`unreadable` counts deeds whose PDF the storage does not give us, though it gives us others; `unread`
    those that were not looked at, because it gives us none now.
    """

    right: int = 0
    missing: int = 0
    differs: int = 0
    unreadable: int = 0
    unread: int = 0

    @property
    def read(self) -> int:
        return self.right + self.missing + self.differs

    @property
    def is_clean(self) -> bool:
        return not (self.missing or self.differs or self.unreadable or self.unread)


def verify(*, limit: int | None) -> Report:
    """Reads `limit` PDFs back, those that were not looked at for longest; all of them with None."""
    report = Report()
    _read_back(report, limit)
    return report


def note_missing(deed: Deed) -> bool:
    """Somebody asked for the PDF, and the storage has none: it is a finding before its turn.

    False where the retention has just deleted it, which is no loss.
    """
    return _note("missing", deed) == "missing"


def orphans(*, older_than: dt.timedelta) -> Iterator[StoredObject]:
    """Objects that no row stands for: of no deed, or of one that has no PDF and is not being made.

    Young ones are left out: their deed may be about to be completed. Raises StoreUnavailable.
    """
    before = timezone.now() - older_than
    chunk: list[StoredObject] = []
    for found in storage.walk():
        if found.modified_at < before:
            chunk.append(found)
        if len(chunk) == _CHUNK:
            yield from _without_deed(chunk)
            chunk = []
    yield from _without_deed(chunk)


def delete_orphan(orphan: StoredObject) -> bool:
    """Deletes it, after a second look at the rows. False when a deed has come to it meanwhile."""
    if not list(_without_deed([orphan])):
        return False
    storage.remove_object(orphan.name)
    log.info("orphan_deleted", object=orphan.name, bytes=orphan.bytes)
    return True


def _read_back(report: Report, limit: int | None) -> None:
    since = timezone.now()
    while limit is None or limit > 0:
        size = _CHUNK if limit is None else min(limit, _CHUNK)
        batch = next((found for rows in due(since) if (found := list(rows[:size]))), [])
        refused: list[tuple[Deed, str]] = []
        for deed in batch:
            try:
                outcome = _look_at(deed)
            except StoreUnavailable as error:
                log.warning("storage_unavailable", deed=str(deed.pk), reason=str(error))
                refused.append((deed, str(error)))
                if not storage.answers():
                    # The others would fare the same, each after a timeout.
                    break
            else:
                setattr(report, outcome, getattr(report, outcome) + 1)
        if refused and not (report.read and storage.answers()):
            report.unread = sum(rows.count() for rows in due(since)) if limit is None else len(refused)
            return
        # Noted as looked at, or they would be the first of each run, and the others never have their turn.
        for deed, reason in refused:
            _note("unreadable", deed, reason)
        report.unreadable += len(refused)
        if not batch:
            return
        limit = None if limit is None else limit - len(batch)


def due(since: dt.datetime) -> tuple[QuerySet[Deed], ...]:
    """Deeds whose PDF was never looked at, and those that were before `since`, the longest ago first.

    In one query the index could serve no order that begins with those that have no time.
    """
    with_pdf = Deed.objects.with_pdf().order_by("pdf_checked_at")
    return with_pdf.filter(pdf_checked_at=None), with_pdf.filter(pdf_checked_at__lt=since)


def _look_at(deed: Deed) -> str:
    """Reads one back; the name of what to count. Raises StoreUnavailable."""
    content = storage.read(deed)
    if content is None:
        return _note("missing", deed)
    if (found := hashlib.sha256(content).hexdigest()) != deed.pdf_sha256:
        return _note("differs", deed, f"{len(content)} bytes, SHA-256 {found}")
    return _note("right", deed)


def _note(outcome: str, deed: Deed, detail: str = "") -> str:
    """Writes down what was found, and returns what to count."""
    now = timezone.now()
    # Deleted by retention while we read: that is no loss.
    if not Deed.objects.with_pdf().filter(pk=deed.pk).update(pdf_checked_at=now):
        return "right"
    PDFS_CHECKED.labels(outcome).inc()
    open_ones = StorageFinding.objects.filter(deed=deed, resolved_at=None)
    open_ones.exclude(kind=outcome).update(resolved_at=now)
    if outcome == "right" or open_ones.filter(kind=outcome).update(seen_at=now, detail=detail[:300]):
        return outcome
    finding = StorageFinding(deed=deed, kind=outcome, detail=detail[:300], found_at=now, seen_at=now)
    StorageFinding.objects.bulk_create([finding], ignore_conflicts=True)
    log.error(_EVENTS[outcome], deed=str(deed.pk))
    return outcome


def _without_deed(found: list[StoredObject]) -> Iterator[StoredObject]:
    ids = {one.name: _deed_id(one.name) for one in found}
    known = {
        storage.name_of(deed)
        for deed in Deed.objects.filter(pk__in=[one for one in ids.values() if one])
        if deed.has_pdf or not deed.is_settled
    }
    yield from (one for one in found if one.name not in known)


def _deed_id(name: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(name.rpartition("/")[2].removesuffix(".pdf"))
    except ValueError:
        return None
