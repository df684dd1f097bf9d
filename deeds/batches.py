"""Takes many orders at once: each is accepted or refused by itself, as if they had come one after another.

What others may want as well is taken in one sequence: order by order, of each the deed that it replaces and
then its own row, and the quota's row when all of these are there. An order by itself does the same. So who
waits holds nothing that is waited for, and Postgres never has to end one of two.
"""

import uuid
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from django.db import transaction

from billing import quotas, telling
from deeds import backlog, ordering, reading, replacing
from deeds.models import Deed, new_deed
from deeds.ordering import Origin, Placement
from partner_api.http.problems import Problem

# An order id with its deed type: unique among what one partner has in one mode.
Identity = tuple[str, str]
Outcome = Placement | Problem


def place_all(origin: Origin, bodies: list[Any]) -> list[Outcome]:
    """What each order comes to, in the order given.

    The number of queries does not depend on how many there are, but on how many replace a deed.
    """
    outcomes: dict[int, Outcome] = {}
    deeds: dict[int, Deed] = {}
    for index, body in enumerate(bodies):
        try:
            deeds[index] = ordering.deed_of(origin, reading.read(body))
        except Problem as problem:
            outcomes[index] = problem
    with transaction.atomic():
        outcomes |= _placed(origin, deeds)
    return [outcomes[index] for index in range(len(bodies))]


def _placed(origin: Origin, deeds: Mapping[int, Deed]) -> dict[int, Outcome]:
    own = origin.partner.deeds.filter(livemode=origin.livemode)
    lineage = replacing.lineage(own, (deed.reissue_of_id for deed in deeds.values()))
    live = _live_among(origin, deeds.values())
    outcomes: dict[int, Outcome] = {}
    # Of each identity the first order that needs a new deed. There is no second: what was just queued is not
    # replaced, so that those after it are answered by what became of it.
    first: dict[Identity, Deed] = {}
    for index, deed in deeds.items():
        if _identity(deed) not in first:
            outcome = _answered(deed, live, lineage)
            if outcome is None:
                first[_identity(deed)] = deed
            else:
                outcomes[index] = outcome
    became = _stored(origin, list(first.values()), lineage)
    late = [deed for deed in first.values() if deed.pk not in became]
    for deed in late:
        # What was seen before is no longer true.
        live.pop(_identity(deed), None)
    live |= _live_among(origin, late)
    live |= {_identity(one.deed): one.deed for one in became.values() if isinstance(one, Placement)}
    for index in sorted(deeds.keys() - outcomes.keys()):
        deed = deeds[index]
        of_first = became.get(first[_identity(deed)].pk, ordering.just_ended())
        if deed.pk in became:
            outcomes[index] = of_first
        else:
            outcomes[index] = _answered(deed, live, lineage) or of_first
    return outcomes


def _answered(deed: Deed, live: Mapping[Identity, Deed], lineage: replacing.Lineage) -> Outcome | None:
    """What an order comes to without a new deed; None where it needs one."""
    try:
        return ordering.answered(deed, live.get(_identity(deed)), lineage)
    except Problem as problem:
        return problem


def _stored(origin: Origin, deeds: list[Deed], lineage: replacing.Lineage) -> dict[uuid.UUID, Outcome]:
    """What became of deeds, each the only one of its order, by their ids.

    It says nothing of those whose place another deed took first.
    """
    room = backlog.room(origin.partner)
    offered = deeds[:room]
    replaced = _insert(offered, lineage)
    ids = [deed.pk for deed in offered]
    inserted = set(Deed.objects.filter(pk__in=ids).values_list("pk", flat=True))
    wanted = [ordering.wanted(deed) for deed in offered if deed.pk in inserted]
    refused = quotas.reserve(origin.partner, wanted, livemode=origin.livemode).refused
    if refused:
        Deed.objects.filter(pk__in=refused).delete()
    accepted = [deed for deed in offered if deed.pk in inserted and deed.pk not in refused]
    stored = {deed.pk for deed in accepted}
    replacing.restore(pk for new, before in replaced.items() if new not in stored for pk in before)
    for refusal in {problem.code: problem for problem in refused.values()}.values():
        telling.refusal(origin.partner, refusal)
    backlog.add(origin.partner, len(accepted))
    transaction.on_commit(lambda: ordering.accepted(accepted, is_bulk=True))
    without_room = dict.fromkeys((deed.pk for deed in deeds[room:]), backlog.full())
    return without_room | refused | {deed.pk: Placement(deed, is_new=True) for deed in accepted}


def _insert(deeds: list[Deed], lineage: replacing.Lineage) -> dict[uuid.UUID, list[uuid.UUID]]:
    """Stores those that no other stands for, each after it took the place of the deed that it replaces.

    Returns the ids of those that were replaced, by the ids of the new ones. An order that is new as such is
    stored together with its neighbours: between two that replace a deed it must keep its place in the
    sequence, as these take rows one by one.
    """
    replaced: dict[uuid.UUID, list[uuid.UUID]] = {}
    for is_new, run in groupby(sorted(deeds, key=_identity), key=lambda deed: deed.reissue_of_id is None):
        if is_new:
            # One that has a live deed meanwhile is passed over by the unique index.
            Deed.objects.bulk_create(list(run), ignore_conflicts=True)
            continue
        for deed in run:
            replaced[deed.pk] = replacing.supersede(deed, lineage, now=deed.created_at)
            new_deed.insert(deed)
    return replaced


def _live_among(origin: Origin, deeds: Iterable[Deed]) -> dict[Identity, Deed]:
    """The deeds that stand for the orders of these."""
    order_ids = {deed.order_id for deed in deeds}
    if not order_ids:
        return {}
    found = origin.partner.deeds.holding_identity().filter(livemode=origin.livemode, order_id__in=order_ids)
    return {_identity(deed): deed for deed in found}


def _identity(deed: Deed) -> Identity:
    return deed.order_id, deed.deed_type
