"""A corrected deed takes the place of the one before, and gives it back where it comes to nothing.

An order always has the deed that stands for it: the last one that was made, or is being made.
"""

import datetime as dt
import uuid

from deeds.models import Deed
from partner_api.http.problems import FieldError, Problem


def find(deed: Deed, deed_id: uuid.UUID, *, live: Deed | None) -> Deed:
    """The deed of this id, which `deed` is to replace; or the one that replaced it before by the same order.

    `live` is the one that stands for the order now. Raises Problem `order_conflict`.
    """
    earlier: Deed | None = deed.partner.deeds.filter(
        livemode=deed.livemode, order_id=deed.order_id, deed_type=deed.deed_type, pk=deed_id
    ).first()
    if earlier is None:
        message = "There is no such deed of this order and deed type; send the id of the one before."
        error = FieldError("/reissue_of", "unknown_deed", message)
        raise Problem("order_conflict", f"/reissue_of: {message}", [error])
    if live is None or live == _made_before(earlier):
        return earlier
    if live != earlier:
        if live.reissue_of_id == earlier.pk and live.order_sha256 == deed.order_sha256:
            return live
        detail = f"Deed {earlier.pk} was replaced by {live.pk}; reissue that one."
        raise Problem("order_conflict", detail, extra={"deed": str(live.pk)})
    if not live.is_settled:
        way_out = "cancel it, or wait" if live.status == Deed.Status.QUEUED else "wait"
        detail = f"Deed {live.pk} is still {live.status}; {way_out} until it is made."
        raise Problem("order_conflict", detail, extra={"deed": str(live.pk)})
    return earlier


def supersede(deed: Deed, *, now: dt.datetime) -> None:
    """Takes the places of the deed that it corrects, and of the one that stands where that was never made.

    In the transaction that stores or queues the deed: of two that stand for an order the database refuses
    the second.
    """
    before = _made_before(deed)
    replaced = [pk for pk in (deed.reissue_of_id, before.pk if before else None) if pk is not None]
    Deed.objects.filter(pk__in=replaced, superseded_at=None).update(superseded_at=now)


def reinstate(deed: Deed) -> None:
    """The deed failed for good or was cancelled: the last one before it that was made stands again.

    In the transaction that ended it.
    """
    before = _made_before(deed)
    if before is not None:
        Deed.objects.filter(pk=before.pk).update(superseded_at=None)


def _made_before(deed: Deed) -> Deed | None:
    """The nearest deed that this one is to correct, by way of those that were never made."""
    before_id = deed.reissue_of_id
    while before_id is not None:
        before = Deed.objects.only("pk", "status", "reissue_of_id").get(pk=before_id)
        if before.status == Deed.Status.COMPLETED:
            return before
        before_id = before.reissue_of_id
    return None
