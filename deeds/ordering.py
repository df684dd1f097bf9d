"""Takes orders: checked, stored and queued in one step, or refused with nothing left behind.

An order is (partner, livemode, order_id, deed_type). The database holds that identity, so that the
same order sent many times at once still is one deed.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable
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

# An order id with its deed type: unique among what one partner has in one mode.
Identity = tuple[str, str]


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
    deed = _deed(origin, order)
    if order.order.reissue_of is not None:
        earlier = replacing.find(deed, order.order.reissue_of, live=_live_deed(deed))
        if earlier.pk != order.order.reissue_of:
            return Placement(earlier, is_new=False)
        deed.reissue_of = earlier
    if not backlog.has_room(origin.partner, 1):
        live = _live_deed(deed)
        if live is None or deed.reissue_of is not None:
            raise backlog.full()
        return _against(deed, live)
    is_reissue = deed.reissue_of is not None
    # Without a savepoint: an order that is not accepted leaves nothing behind but for what it would replace.
    with transaction.atomic(savepoint=is_reissue):
        outcome = _insert(deed)
        if is_reissue and not isinstance(outcome, Placement):
            transaction.set_rollback(True)
    if outcome is None:
        return _against(deed, _live_deed(deed))
    if isinstance(outcome, Problem):
        telling.refusal(deed.partner, outcome)
        outcome.after_undoing = partial(telling.refusal, deed.partner, outcome)
        raise outcome
    backlog.add(origin.partner, 1)
    return outcome


def _insert(deed: Deed) -> Placement | Problem | None:
    """Stores a deed with its place in the quota. None where another stands for the order.

    A problem says that there is no place; then there is no deed either.
    """
    if deed.reissue_of is not None:
        replacing.supersede(deed, now=deed.created_at)
    if not new_deed.insert(deed):
        return None
    reserved = quotas.reserve(deed.partner, [_wanted(deed)], livemode=deed.livemode)
    if reserved.refused:
        new_deed.take_back(deed)
        return reserved.refused[deed.pk]
    transaction.on_commit(lambda: _accepted([deed], is_bulk=deed.is_bulk))
    return Placement(deed, is_new=True, headers=reserved.headers)


def place_all(origin: Origin, bodies: list[Any]) -> list[Placement | Problem]:
    """Many orders, each accepted or refused by itself, in the order given.

    The number of queries does not depend on how many there are, but for those that replace a deed:
    these are placed one by one.
    """
    outcomes: dict[int, Placement | Problem] = {}
    candidates: dict[int, Deed] = {}
    for index, body in enumerate(bodies):
        try:
            order = reading.read(body)
            if order.order.reissue_of is None:
                candidates[index] = _deed(origin, order)
            else:
                outcomes[index] = place_read(origin, order)
        except Problem as problem:
            outcomes[index] = problem
    standing = _insert_those_that_are_new(origin, list(candidates.values()))
    for index, deed in candidates.items():
        try:
            outcomes[index] = _against(deed, standing.get((deed.order_id, deed.deed_type)))
        except Problem as problem:
            outcomes[index] = problem
    return [outcomes[index] for index in range(len(bodies))]


def _insert_those_that_are_new(origin: Origin, deeds: list[Deed]) -> dict[Identity, Deed | Problem]:
    """The live deed of each order, after all that could be were inserted.

    In its place stands the problem of an order that there was no room or no quota for.
    """
    offered: dict[Identity, Deed] = {}
    for deed in deeds:
        offered.setdefault((deed.order_id, deed.deed_type), deed)
    without_room: set[Identity] = set()
    room = backlog.room(origin.partner)
    with transaction.atomic():
        if room < len(offered):
            there_before = _live_among(origin, offered)
            without_room = set([identity for identity in offered if identity not in there_before][room:])
        # An order that has a live deed already is passed over by the unique index. Always in one sequence:
        # two batches that share orders would otherwise wait for each other, and Postgres would end one.
        inserted = [deed for identity, deed in sorted(offered.items()) if identity not in without_room]
        Deed.objects.bulk_create(inserted, ignore_conflicts=True)
        live = _live_among(origin, offered)
        new = {deed.pk for deed in deeds} & {deed.pk for deed in live.values()}
        wanted = [_wanted(deed) for deed in deeds if deed.pk in new]
        refused = quotas.reserve(origin.partner, wanted, livemode=origin.livemode).refused
        if refused:
            Deed.objects.filter(pk__in=refused).delete()
        accepted = [deed for deed in inserted if deed.pk in new and deed.pk not in refused]
        backlog.add(origin.partner, len(accepted))
        transaction.on_commit(lambda: _accepted(accepted, is_bulk=True))
    for refusal in {problem.code: problem for problem in refused.values()}.values():
        telling.refusal(origin.partner, refusal)
    standing: dict[Identity, Deed | Problem] = {identity: backlog.full() for identity in without_room}
    return standing | {identity: refused.get(deed.pk, deed) for identity, deed in live.items()}


def _live_among(origin: Origin, identities: Iterable[Identity]) -> dict[Identity, Deed]:
    found = origin.partner.deeds.holding_identity().filter(
        livemode=origin.livemode, order_id__in={order_id for order_id, _ in identities}
    )
    return {(deed.order_id, deed.deed_type): deed for deed in found}


def cancel(partner: Partner, *, livemode: bool, deed_id: uuid.UUID, detail: str = "") -> Deed:
    """Ends a deed that is still queued. Raises Problem: `not_found`, `not_cancellable`.

    `detail` is for the timeline, where it was not the partner who did it.
    """
    deed = find(partner, livemode=livemode, deed_id=deed_id)
    with transaction.atomic():
        is_cancelled = deed.cancel(now=timezone.now(), detail=detail)
        deed.refresh_from_db()
        if is_cancelled:
            quotas.release(deed.pk)
            replacing.reinstate(deed)
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
        replacing.supersede(deed, now=now)
        is_queued = deed.requeue(now=now)
        if not is_queued:
            transaction.set_rollback(True)
        else:
            quotas.reserve_again(deed.partner, _wanted(deed), livemode=deed.livemode)
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


def _accepted(deeds: list[Deed], *, is_bulk: bool) -> None:
    """After the commit: counts them, and tells the workers."""
    for deed in deeds:
        metrics.ORDERS.labels(deed.deed_type, deed.source).inc()
    hint_all([deed.pk for deed in deeds], is_bulk=is_bulk)


def _deed(origin: Origin, order: Reading) -> Deed:
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
        warnings=order.warnings,
        source=origin.source,
        is_bulk=origin.source == Deed.Source.BATCH,
        request_id=origin.request_id,
        timeline=[first_entry(now)],
        created_at=now,
        next_attempt_at=now,
        hinted_at=now,
    )


def _wanted(deed: Deed) -> quotas.Wanted:
    return quotas.Wanted(deed.pk, deed.deed_type, is_reissue=deed.reissue_of_id is not None)


def _against(deed: Deed, live: Deed | Problem | None) -> Placement:
    """What an order comes to, given the deed that stands for it. Raises Problem `order_conflict`.

    Raises the problem itself that stands in a deed's place.
    """
    if isinstance(live, Problem):
        raise live
    if live is None:
        # It failed or was cancelled between our insert and this look: the order is free again.
        detail = "The order's earlier deed has just ended; send the order again."
        raise Problem("order_conflict", detail, headers={"Retry-After": "1"})
    if live.order_sha256 != deed.order_sha256:
        detail = (
            f"Order {deed.order_id!r} has another body and is deed {live.pk}. If a corrected "
            f'deed is meant, send it with "reissue_of": "{live.pk}".'
        )
        raise Problem("order_conflict", detail, extra={"deed": str(live.pk)})
    return Placement(live, is_new=live.pk == deed.pk)


def _live_deed(deed: Deed) -> Deed | None:
    return (
        deed.partner.deeds.holding_identity()
        .filter(livemode=deed.livemode, order_id=deed.order_id, deed_type=deed.deed_type)
        .first()
    )
