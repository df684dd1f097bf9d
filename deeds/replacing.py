"""A corrected deed takes the place of the one before, and gives it back where it comes to nothing.

An order always has the deed that stands for it: the last one that was made, or is being made.
"""

import datetime as dt
import uuid
from collections.abc import Iterable, Mapping
from typing import Final

from django.db.models import QuerySet

from deeds.models import Deed
from partner_api.http.problems import FieldError, Problem

# Deeds by their ids, each with those that it was to correct.
Lineage = Mapping[uuid.UUID, Deed]
_LIGHT: Final = ("id", "partner_id", "status", "superseded_at", "reissue_of_id", "order_id", "deed_type")


def lineage(deeds: QuerySet[Deed], deed_ids: Iterable[uuid.UUID | None]) -> Lineage:
    """Those of these ids, and those that each was to correct, back to one that was made.

    `deeds` are all of a partner's in one mode. A query for each generation, however many ids there are.
    """
    known: dict[uuid.UUID, Deed] = {}
    asked = {deed_id for deed_id in deed_ids if deed_id is not None}
    generation = asked
    while generation:
        found = deeds.filter(pk__in=generation).only(*_LIGHT).in_bulk()
        known |= found
        before = {
            deed.reissue_of_id
            for deed in found.values()
            if deed.status != Deed.Status.COMPLETED or deed.pk in asked
        }
        generation = {deed_id for deed_id in before if deed_id is not None} - known.keys()
    return known


def find(deed: Deed, lineage: Lineage, *, live: Deed | None) -> Deed | None:
    """The deed that the same order made before in the place of the one it is to correct. None where it may.

    `live` is the one that stands for the order now. Raises Problem `order_conflict`.
    """
    earlier = lineage.get(deed.reissue_of_id) if deed.reissue_of_id else None
    if earlier is None or (earlier.order_id, earlier.deed_type) != (deed.order_id, deed.deed_type):
        message = "There is no such deed of this order and deed type; send the id of the one before."
        error = FieldError("/reissue_of", "unknown_deed", message)
        raise Problem("order_conflict", f"/reissue_of: {message}", [error])
    if live is None or live == standing_before(earlier, lineage):
        return None
    if live != earlier:
        if live.reissue_of_id == earlier.pk and live.order_sha256 == deed.order_sha256:
            return live
        detail = f"Deed {earlier.pk} was replaced by {live.pk}; reissue that one."
        raise Problem("order_conflict", detail, extra={"deed": str(live.pk)})
    if not live.is_settled:
        way_out = "cancel it, or wait" if live.status == Deed.Status.QUEUED else "wait"
        detail = f"Deed {live.pk} is still {live.status}; {way_out} until it is made."
        raise Problem("order_conflict", detail, extra={"deed": str(live.pk)})
    return None


def supersede(deed: Deed, lineage: Lineage, *, now: dt.datetime) -> list[uuid.UUID]:
    """Takes the places of the deed that it corrects, and of the one that stands in that one's place.

    In the transaction that stores or queues the deed: of two that stand for an order the database refuses
    the second. One that was queued again meanwhile keeps its place, as it will be made. The ids of those
    that lost theirs are for `restore`.
    """
    standing = standing_before(deed, lineage)
    replaced = {pk for pk in (deed.reissue_of_id, standing.pk if standing else None) if pk is not None}
    # One by one, the oldest first: of two that want both, the second waits before it has any.
    those = Deed.objects.replaceable()
    return [pk for pk in sorted(replaced) if those.filter(pk=pk).update(superseded_at=now)]


def restore(deed_ids: Iterable[uuid.UUID]) -> None:
    """Gives their places back, in the transaction in which they lost them."""
    Deed.objects.filter(pk__in=deed_ids).update(superseded_at=None)


def reinstate(deed: Deed) -> None:
    """The deed failed for good or was cancelled: the last one before it that was made stands again.

    In the transaction that ended it.
    """
    before = _made_before(deed, lineage_of(deed))
    if before is not None:
        Deed.objects.filter(pk=before.pk, status=Deed.Status.COMPLETED).update(superseded_at=None)


def lineage_of(deed: Deed) -> Lineage:
    """The deeds that this one is to correct; most correct none, and cost no query."""
    if deed.reissue_of_id is None:
        return {}
    deeds = Deed.objects.filter(partner=deed.partner_id, livemode=deed.livemode)
    return lineage(deeds, [deed.reissue_of_id])


def standing_before(deed: Deed, lineage: Lineage) -> Deed | None:
    """The completed deed that stands for the order because those that should replace it came to nothing."""
    before = _made_before(deed, lineage)
    return before if before is not None and before.superseded_at is None else None


def _made_before(deed: Deed, lineage: Lineage) -> Deed | None:
    """The nearest deed that this one is to correct, by way of those that were never made."""
    before = lineage.get(deed.reissue_of_id) if deed.reissue_of_id else None
    while before is not None and before.status != Deed.Status.COMPLETED:
        before = lineage.get(before.reissue_of_id) if before.reissue_of_id else None
    return before
