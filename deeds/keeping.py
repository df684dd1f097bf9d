"""How long PDFs are kept: for PDF_RETENTION_DAYS, longer while a legal hold is on them.

A deletion is first written to the row (so that a hold and a deletion can't both win), then done in the
storage, then written as done. What dies in between is taken up by the next run.
"""

import datetime as dt
import uuid
from typing import Any, Final

import structlog
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from deeds import storage
from deeds.models import Deed
from deeds.stores import EXPIRE, RETENTION_TAG, StoreUnavailable
from keys import audit
from keys.audit import Actor
from keys.models import Partner

log = structlog.get_logger(__name__)

BATCH: Final = 500
# Of a storage that answers, before the rest is left to the next run: each may wait for its timeouts.
_MOST_REFUSALS: Final = 500
_LIFECYCLE_ID: Final = "delete-pdfs-after-retention"


def delete_outdated() -> int:
    """Deletes the PDFs that were kept long enough, in batches; how many. None without a retention.

    One that can't be deleted keeps no other from it. Raises StoreUnavailable where the storage does not
    answer; the next run goes on from there.
    """
    # First, so that nothing that refuses a deletion leaves a hold to the storage's own rule.
    _mark_holds_again()
    if settings.PDF_RETENTION_DAYS > 0:
        before = timezone.now() - dt.timedelta(days=settings.PDF_RETENTION_DAYS)
        while _tell_rows(before):
            pass
    deleted = 0
    stuck: list[uuid.UUID] = []
    while len(stuck) < _MOST_REFUSALS and (batch := _to_delete(stuck)):
        for deed in batch:
            try:
                storage.remove(deed)
            except StoreUnavailable as error:
                storage.check()
                log.error("pdf_not_deleted", deed=str(deed.pk), reason=str(error))  # noqa: TRY400 - of the storage
                stuck.append(deed.pk)
            else:
                # Only now is nothing left; a crash before this line repeats the removal, which is harmless.
                deleted += Deed.objects.half_deleted().filter(pk=deed.pk).update(pdf_name="")
    if deleted:
        log.info("pdfs_deleted", count=deleted)
    return deleted


def _to_delete(stuck: list[uuid.UUID]) -> list[Deed]:
    return list(Deed.objects.half_deleted().exclude(pk__in=stuck).order_by("completed_at")[:BATCH])


def hold(deed: Deed, actor: Actor, reason: str) -> bool:
    """Puts a legal hold on the deed. False when it has one, or its PDF was deleted.

    The storage is told after the row. When it can't be reached, every run of the retention repeats it,
    and a rule of its own comes a day after ours; so nothing is lost by that.
    """
    with transaction.atomic():
        is_held = Deed.objects.filter(pk=deed.pk).put_on_hold(now=timezone.now(), reason=reason) == 1
        deed.refresh_from_db()
        if is_held:
            _record(deed, actor, "deed.held", before=None, after=deed.held_at, reason=reason)
    if is_held and deed.has_pdf:
        _tell_storage(deed)
    return is_held


def release(deed: Deed, actor: Actor, reason: str) -> bool:
    """Ends the hold that `deed` was read with. False without one, or where it is another by now."""
    since = deed.held_at
    with transaction.atomic():
        is_released = Deed.objects.filter(pk=deed.pk, held_at=since).release() == 1
        deed.refresh_from_db()
        if is_released:
            _record(deed, actor, "deed.released", before=since, after=None, reason=reason)
    if is_released and deed.has_pdf:
        _tell_storage(deed)
    return is_released


def lifecycle_rules() -> dict[str, Any]:
    """What S3 may delete by itself: what is tagged to expire, a day after we should have done it.

    S3 can't read our rows. So each object says by a tag whether it expires, and a hold changes the tag.
    Raises ValueError without PDF_RETENTION_DAYS.
    """
    if settings.PDF_RETENTION_DAYS <= 0:
        message = "PDF_RETENTION_DAYS is not set: PDFs are kept for good"
        raise ValueError(message)
    prefix = f"{settings.S3_PREFIX}/deeds/" if settings.S3_PREFIX else "deeds/"
    return {
        "Rules": [
            {
                "ID": _LIFECYCLE_ID,
                "Status": "Enabled",
                "Filter": {"And": {"Prefix": prefix, "Tags": [{"Key": RETENTION_TAG, "Value": EXPIRE}]}},
                "Expiration": {"Days": settings.PDF_RETENTION_DAYS + 1},
                # In a bucket with versions a deletion only hides; this ends the hidden ones.
                "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
            },
        ]
    }


def merged_with(existing: list[dict[str, Any]]) -> dict[str, Any]:
    """Ours, and the bucket's other rules as they are: S3 takes all rules at once."""
    others = [rule for rule in existing if rule.get("ID") != _LIFECYCLE_ID]
    return {"Rules": others + lifecycle_rules()["Rules"]}


def _tell_rows(before: dt.datetime) -> int:
    outdated = Deed.objects.outdated(before)
    with transaction.atomic():
        # Those that a batch of corrections holds are left to the next run: it takes them in another sequence.
        free = outdated.order_by("completed_at").select_for_update(skip_locked=True, no_key=True)
        ids = list(free.values_list("pk", flat=True)[:BATCH])
        return outdated.filter(pk__in=ids).update(pdf_deleted_at=timezone.now())


def _mark_holds_again() -> None:
    """For a storage that missed it, with or without a retention: its own rule may be older than the setting.

    What refuses one deed's mark may take the others'.
    """
    refusals = 0
    for deed in Deed.objects.with_pdf().filter(held_at__isnull=False).iterator():
        if _tell_storage(deed):
            continue
        refusals += 1
        if refusals == _MOST_REFUSALS or not storage.answers():
            return


def _tell_storage(deed: Deed) -> bool:
    try:
        if deed.held_at is not None:
            storage.mark_held(deed)
        else:
            storage.mark_released(deed)
    except StoreUnavailable as error:
        log.warning("hold_not_marked", deed=str(deed.pk), reason=str(error))
        return False
    return True


def _record(deed: Deed, actor: Actor, action: str, *, before: Any, after: Any, reason: str) -> None:
    partner: Partner = deed.partner
    facts = [{"held_at": value.isoformat() if value else None} for value in (before, after)]
    audit.record(actor, action, deed, partner=partner, before=facts[0], after=facts[1], reason=reason)
