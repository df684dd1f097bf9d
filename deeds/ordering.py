"""Takes orders: checked, stored and queued in one step, or refused with nothing left behind.

An order is (partner, livemode, order_id, deed_type). The database holds that identity, so that the
same order sent many times at once still is one deed.
"""

import hashlib
import json
import uuid
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.db import transaction
from django.utils import timezone

from billing import quotas, telling
from deeds import backlog, metrics, reading, replacing
from deeds.hints import hint, hint_all
from deeds.models import Deed, first_entry, new_deed
from deeds.models.own_deed import own_deed
from deeds.reading import Reading
from deeds.signals import deed_settled
from keys.models import ApiKey, Partner
from partner_api.http.problems import Problem, not_found


@dataclass(frozen=True)
class Origin:
    """Who orders, and how the request is known in the logs.

    `is_live` is the mode of an order that comes without a key.
    """

    partner: Partner
    api_key: ApiKey | None
    source: str
    request_id: str
    is_live: bool = False

    @property
    def livemode(self) -> bool:
        return self.api_key.livemode if self.api_key else self.is_live


@dataclass(frozen=True)
class Placement:
    """A deed, and whether this order made it (or it was there before).

    `headers` say what a new one left of the partner's quota.
    """

    deed: Deed
    is_new: bool
    headers: dict[str, str] = field(default_factory=dict)


def place(origin: Origin, body: Any) -> Placement:
    """Accepts an order. Raises Problem: `validation_error`, `order_conflict`."""
    return place_read(origin, reading.read(body))


def place_read(origin: Origin, order: Reading) -> Placement:
    """The same for a body that was read already. Raises a Problem of quotas.reserve, too."""
    deed = deed_of(origin, order)
    is_reissue = deed.reissue_of_id is not None
    lineage = replacing.lineage_of(deed)
    if is_reissue:
        made = answered(deed, _live_deed(deed), lineage)
        if made is not None:
            return made
    if not backlog.has_room(origin.partner, 1):
        live = _live_deed(deed)
        if live is None or is_reissue:
            raise backlog.full()
        return against(deed, live)
    # Without a savepoint: an order that is not accepted leaves nothing behind but for what it would replace.
    with transaction.atomic(savepoint=is_reissue):
        outcome = _insert(deed, lineage)
        if is_reissue and not isinstance(outcome, Placement):
            transaction.set_rollback(True)
    if outcome is None:
        return against(deed, _live_deed(deed))
    if isinstance(outcome, Problem):
        telling.refusal(deed.partner, outcome)
        outcome.after_undoing = partial(telling.refusal, deed.partner, outcome)
        raise outcome
    backlog.add(origin.partner, 1)
    return outcome


def _insert(deed: Deed, lineage: replacing.Lineage) -> Placement | Problem | None:
    """Stores a deed with its place in the quota. None where another stands for the order.

    A problem says that there is no place; then there is no deed either.
    """
    if deed.reissue_of_id is not None:
        replacing.supersede(deed, lineage, now=deed.created_at)
    if not new_deed.insert(deed):
        return None
    reserved = quotas.reserve(deed.partner, [wanted(deed)], livemode=deed.livemode)
    if reserved.refused:
        new_deed.take_back(deed)
        return reserved.refused[deed.pk]
    transaction.on_commit(lambda: accepted([deed], is_bulk=deed.is_bulk))
    return Placement(deed, is_new=True, headers=reserved.headers)


def cancel(partner: Partner, *, livemode: bool, deed_id: uuid.UUID, detail: str = "") -> Deed:
    """Ends a deed that is still queued. Raises Problem: `not_found`, `not_cancellable`.

    `detail` is for the timeline, where it was not the partner who did it.
    """
    deed = find(partner, livemode=livemode, deed_id=deed_id)
    with transaction.atomic():
        is_cancelled = deed.cancel(now=timezone.now(), detail=detail)
        deed.refresh_from_db()
        if is_cancelled:
            replacing.reinstate(deed)
            quotas.release(deed.pk)
            deed_settled.send(sender=Deed, deed=deed)
    if not is_cancelled:
        message = f"The deed is {deed.status}; only a queued one can be cancelled."
        raise Problem("not_cancellable", message)
    return deed


def requeue(deed: Deed) -> bool:
    """Queues a failed deed again. False in any other state, and for one that was replaced.

    A corrected deed takes the place again of the one before it. Raises IntegrityError when another deed has
    taken over its order.
    """
    now = timezone.now()
    with transaction.atomic():
        replacing.supersede(deed, replacing.lineage_of(deed), now=now)
        is_queued = deed.requeue(now=now)
        if not is_queued:
            transaction.set_rollback(True)
        else:
            quotas.reserve_again(deed.partner, wanted(deed), livemode=deed.livemode)
            transaction.on_commit(lambda: hint(deed.pk, is_bulk=deed.is_bulk))
    return is_queued


def find(partner: Partner, *, livemode: bool, deed_id: uuid.UUID) -> Deed:
    """The partner's own deed of this mode. Raises Problem `not_found` for any other."""
    deed = own_deed(partner.pk, livemode=livemode, deed_id=deed_id)
    if deed is None:
        raise not_found()
    deed.partner = partner
    return deed


def order_sha256(given: dict[str, Any]) -> str:
    """Hex digest of what is ordered: without regard to key order, white space, or what it replaces."""
    facts = {name: value for name, value in given.items() if name != "reissue_of"}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def accepted(deeds: list[Deed], *, is_bulk: bool) -> None:
    """After the commit: counts them, and tells the workers."""
    for deed in deeds:
        metrics.ORDERS.labels(deed.deed_type, deed.source).inc()
    hint_all([deed.pk for deed in deeds], is_bulk=is_bulk)


def deed_of(origin: Origin, order: Reading) -> Deed:
    """The row of an order, not saved yet."""
    now = timezone.now()
    return Deed(
        partner=origin.partner,
        api_key=origin.api_key,
        livemode=origin.livemode,
        order_id=order.order.order_id,
        deed_type=order.deed_type.slug,
        order=order.given,
        order_sha256=order_sha256(order.given),
        reissue_of_id=order.order.reissue_of,
        warnings=order.warnings,
        source=origin.source,
        is_bulk=origin.source == Deed.Source.BATCH,
        request_id=origin.request_id,
        timeline=[first_entry(now)],
        created_at=now,
        next_attempt_at=now,
        hinted_at=now,
    )


def wanted(deed: Deed) -> quotas.Wanted:
    return quotas.Wanted(deed.pk, deed.deed_type, is_reissue=deed.reissue_of_id is not None)


def answered(deed: Deed, live: Deed | None, lineage: replacing.Lineage) -> Placement | None:
    """What an order comes to without a new deed, given the one that stands for it; None where it needs one.

    Raises Problem `order_conflict`.
    """
    if deed.reissue_of_id is not None:
        earlier = replacing.find(deed, lineage, live=live)
        return None if earlier is None else Placement(earlier, is_new=False)
    return None if live is None else against(deed, live)


def against(deed: Deed, live: Deed | None) -> Placement:
    """What an order comes to that was not stored, given the deed that stands for it.

    Raises Problem `order_conflict`.
    """
    if live is None:
        raise just_ended()
    if live.order_sha256 != deed.order_sha256:
        detail = (
            f"Order {deed.order_id!r} has another body and is deed {live.pk}. If a corrected "
            f'deed is meant, send it with "reissue_of": "{live.pk}".'
        )
        raise Problem("order_conflict", detail, extra={"deed": str(live.pk)})
    return Placement(live, is_new=False)


def just_ended() -> Problem:
    """What was in the way of our insert failed or was cancelled before we looked: the order is free again."""
    detail = "The order's earlier deed has just ended; send the order again."
    return Problem("order_conflict", detail, headers={"Retry-After": "1"})


def _live_deed(deed: Deed) -> Deed | None:
    return (
        deed.partner.deeds.holding_identity()
        .filter(livemode=deed.livemode, order_id=deed.order_id, deed_type=deed.deed_type)
        .first()
    )
