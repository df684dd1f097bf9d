"""A corrected deed takes the place of the one before, and gives it back where it comes to nothing.

An order always has the deed that stands for it: the last one that was made, or is being made.
"""

import datetime as dt

from deeds.models import Deed


def supersede(deed: Deed, *, now: dt.datetime) -> None:
    """Takes the places of the deed that it corrects, and of the one that stands in that one's place.

    In the transaction that stores or queues the deed: of two that stand for an order the database refuses
    the second.
    """
    standing = standing_before(deed)
    replaced = [pk for pk in (deed.reissue_of_id, standing.pk if standing else None) if pk is not None]
    Deed.objects.filter(pk__in=replaced, superseded_at=None).update(superseded_at=now)


def reinstate(deed: Deed) -> None:
    """The deed failed for good or was cancelled: the last one before it that was made stands again.

    In the transaction that ended it.
    """
    before = _made_before(deed)
    if before is not None:
        Deed.objects.filter(pk=before.pk, status=Deed.Status.COMPLETED).update(superseded_at=None)


def standing_before(deed: Deed) -> Deed | None:
    """The completed deed that stands for the order because those that should replace it came to nothing."""
    before = _made_before(deed)
    return before if before is not None and before.superseded_at is None else None


def _made_before(deed: Deed) -> Deed | None:
    """The nearest deed that this one is to correct, by way of those that were never made."""
    before_id = deed.reissue_of_id
    while before_id is not None:
        before = Deed.objects.only("pk", "status", "superseded_at", "reissue_of_id").get(pk=before_id)
        if before.status == Deed.Status.COMPLETED:
            return before
        before_id = before.reissue_of_id
    return None
