"""Decides, before an order is accepted, whether its partner's quota and budget have room for it.

An order reserves its place in the transaction that inserts its deed, by one conditional UPDATE of the
period's row; the ledger turns the reservation into use when the deed is completed, and a deed that ends
otherwise gives it back. Call `reserve` after the insert: the row is then locked only until the commit,
and whoever waits for it holds nothing that its holder needs.
"""

import datetime as dt
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from django.db import connection
from django.db.models import Exists, F, OuterRef, QuerySet, Sum
from django.utils import timezone

from billing import periods, places, prices, quota_answers, telling
from billing.models import BillingPeriod, Contract, Invoice, PeriodCount, Reservation
from billing.pricing import minor, shares
from keys.models import Partner
from partner_api.http.problems import Problem

_TAKE: Final = f"""
    UPDATE billing_periods
    SET deeds_reserved = deeds_reserved + %(count)s, money_reserved = money_reserved + %(amount)s
    WHERE id = %(period)s AND {places.ROOM}
    RETURNING {", ".join(places.COUNTERS)}, told::text
"""  # noqa: S608 - names of our own
_RELEASE: Final = """
    WITH held AS (
      DELETE FROM quota_reservations WHERE source_id = %s RETURNING period_id, amount
    )
    UPDATE billing_periods
    SET deeds_reserved = deeds_reserved - 1, money_reserved = money_reserved - held.amount
    FROM held WHERE id = held.period_id
    RETURNING id
"""
PROBLEMS: Final = ("quota_exceeded", "budget_exceeded", "payment_required")


@dataclass(frozen=True)
class Wanted:
    """An order that asks for a place."""

    source_id: uuid.UUID
    deed_type: str
    is_reissue: bool


@dataclass(frozen=True)
class Reserved:
    """What became of orders that asked for a place.

    `refused` are the problems of those that got none, by their ids: `quota_exceeded`, `budget_exceeded` or
    `payment_required`. `headers` say what is left of the quota, as `headers` would.
    """

    refused: dict[uuid.UUID, Problem]
    headers: dict[str, str]


@dataclass
class _Room:
    """What a period allows, and what each order would take of it. Money is in minor units.

    `is_steady` says that an order costs the same whatever was ordered before it.
    """

    period: BillingPeriod
    contract: Contract | None
    currency: str
    deeds: int | None
    money: Decimal | None
    is_hard: bool
    is_steady: bool = True
    costs: dict[uuid.UUID, tuple[str, Decimal]] = field(default_factory=dict)

    def total(self, wanted: Sequence[Wanted]) -> Decimal:
        return sum((self.costs[one.source_id][1] for one in wanted), Decimal(0))


def reserve(partner: Partner, wanted: Sequence[Wanted], *, livemode: bool) -> Reserved:
    """Takes places for all that fit. Test orders always fit.

    Call it inside the transaction that inserts the orders, after the insert.
    """
    if not livemode or not wanted:
        return Reserved({}, {})
    now = timezone.now()
    if len(wanted) > 1:
        return _reserve(partner, wanted, now)
    (one,) = wanted
    kind = (partner.pk, one.deed_type, one.is_reissue)
    terms = places.recall(kind)
    period = None if terms is None else places.take(terms, one.source_id, now=now)
    if terms is None or period is None:
        places.forget(kind)
        return _reserve(partner, wanted, now)
    if telling.is_due(period, deeds=terms.deeds, money=terms.money):
        telling.thresholds(period.pk, deeds=terms.deeds, money=terms.money)
    return Reserved({}, quota_answers.headers_of(period, terms.quota))


def _reserve(partner: Partner, wanted: Sequence[Wanted], now: dt.datetime) -> Reserved:
    period = _current(partner, now)
    if period.is_unpaid:
        problem = quota_answers.payment_required(partner, now)
        return Reserved(dict.fromkeys((one.source_id for one in wanted), problem), {})
    room = _room(period, wanted, now)
    refused: dict[uuid.UUID, Problem] = {}
    if _take(room, wanted):
        accepted = list(wanted)
    else:
        room.period = BillingPeriod.objects.select_for_update(no_key=True).get(pk=room.period.pk)
        accepted, refused = _those_that_fit(room, wanted)
        _take(room, accepted)
    Reservation.objects.bulk_create(
        Reservation(
            source_id=one.source_id,
            period=room.period,
            item=room.costs[one.source_id][0],
            amount=room.costs[one.source_id][1],
        )
        for one in accepted
    )
    if accepted and telling.is_due(room.period, deeds=room.deeds, money=room.money):
        telling.thresholds(room.period.pk, deeds=room.deeds, money=room.money)
    if room.is_steady:
        _remember(period.partner, room, accepted)
    return Reserved(refused, quota_answers.headers_of(room.period, period.partner.monthly_deed_quota))


def _remember(partner: Partner, room: _Room, accepted: Sequence[Wanted]) -> None:
    for one in {(one.deed_type, one.is_reissue): one for one in accepted}.values():
        item, amount = room.costs[one.source_id]
        terms = places.Terms(
            period_id=room.period.pk,
            ends_at=room.period.ends_at,
            quota=partner.monthly_deed_quota,
            cap=partner.budget_cap,
            contract_id=room.contract.pk if room.contract else None,
            is_free=room.deeds is None and room.money is None,
            is_hard=room.is_hard,
            deeds=room.deeds,
            money=room.money,
            item=item,
            amount=amount,
        )
        places.remember((partner.pk, one.deed_type, one.is_reissue), terms)


def release(source_id: uuid.UUID) -> uuid.UUID | None:
    """Gives an order's place back; the id of its period, or None where it holds none (any more)."""
    with connection.cursor() as cursor:
        cursor.execute(_RELEASE, [source_id])
        released = cursor.fetchone()
    return None if released is None else released[0]


def reserve_again(partner: Partner, wanted: Wanted, *, livemode: bool) -> None:
    """A place for an order that staff queued again; staff's word counts more than the quota."""
    if not livemode or Reservation.objects.filter(pk=wanted.source_id).exists():
        return
    now = timezone.now()
    room = _room(_current(partner, now), [wanted], now)
    item, amount = room.costs[wanted.source_id]
    BillingPeriod.objects.filter(pk=room.period.pk).update(
        deeds_reserved=F("deeds_reserved") + 1, money_reserved=F("money_reserved") + amount
    )
    Reservation.objects.create(source_id=wanted.source_id, period=room.period, item=item, amount=amount)


def held_since_before(moment: dt.datetime) -> QuerySet[Reservation]:
    """Places that are older than a moment; whoever knows their orders releases those that have ended."""
    return Reservation.objects.filter(created_at__lt=moment)


def headers(partner: Partner, *, livemode: bool) -> dict[str, str]:
    """`X-Quota-Limit`, `-Remaining` and `-Reset` (Unix seconds); none for test keys or without a quota."""
    if not livemode or partner.monthly_deed_quota is None:
        return {}
    period = periods.at(partner, timezone.now())
    return quota_answers.headers_of(period, partner.monthly_deed_quota)


def _current(partner: Partner, now: dt.datetime) -> Any:
    """The running period with its partner as it is now, and `is_unpaid`; in one query as a rule."""
    overdue = Invoice.objects.overdue(now).filter(partner=OuterRef("partner"))
    running = BillingPeriod.objects.at(partner.pk, now).select_related("partner")
    annotated = running.annotate(is_unpaid=Exists(overdue))
    found = annotated.first()
    if found is None:
        periods.at(partner, now)
        found = annotated.get()
    return found


def _room(period: BillingPeriod, wanted: Sequence[Wanted], now: dt.datetime) -> _Room:
    partner = period.partner
    if partner.monthly_deed_quota is None and partner.budget_cap is None:
        costs = {one.source_id: (one.deed_type, Decimal(0)) for one in wanted}
        return _Room(period, None, "", deeds=None, money=None, is_hard=False, costs=costs)
    contract = Contract.objects.in_force(partner.pk, now.date())
    currency = prices.currency_of(contract)
    room = _Room(
        period,
        contract,
        currency,
        deeds=partner.monthly_deed_quota,
        money=None if partner.budget_cap is None else minor(partner.budget_cap, currency),
        is_hard=contract is None or not contract.is_soft,
    )
    _estimate(room, wanted)
    return room


def _estimate(room: _Room, wanted: Sequence[Wanted]) -> None:
    """What each order would cost if all that are open before it were completed first."""
    positions: dict[str, int] = {}
    for one in wanted:
        item = prices.item_of(room.contract, one.deed_type, is_reissue=one.is_reissue)
        tiers = prices.tiers_of(room.contract, item) or prices.FREE
        if item not in positions:
            is_steady = room.money is None or len(tiers) == 1
            positions[item] = 0 if is_steady else _ahead(room.period, item)
            room.is_steady = room.is_steady and is_steady
        (share,) = shares(tiers, before=positions[item], quantity=1)
        room.costs[one.source_id] = (item, minor(share.unit_price, room.currency))
        positions[item] += 1


def _ahead(period: BillingPeriod, item: str) -> int:
    charged = PeriodCount.objects.filter(period=period, item=item).aggregate(total=Sum("quantity"))["total"]
    return (charged or 0) + Reservation.objects.filter(period=period, item=item).count()


def _take(room: _Room, wanted: Sequence[Wanted]) -> bool:
    """One conditional UPDATE: places for all of them, or for none. The period then is as it was left."""
    facts: dict[str, Any] = {
        "period": room.period.pk,
        "count": len(wanted),
        "amount": room.total(wanted),
        "deeds": room.deeds if room.is_hard else None,
        "money": room.money if room.is_hard else None,
    }
    with connection.cursor() as cursor:
        cursor.execute(_TAKE, facts)
        left = cursor.fetchone()
    if left is None:
        return False
    for name, value in zip(places.COUNTERS, left[:-1], strict=True):
        setattr(room.period, name, value)
    room.period.told = json.loads(left[-1])
    return True


def _those_that_fit(room: _Room, wanted: Sequence[Wanted]) -> tuple[list[Wanted], dict[uuid.UUID, Problem]]:
    """In the order given; the period is locked, so what fits now fits until the end."""
    period = room.period
    deeds = None if room.deeds is None else room.deeds + period.extra_deeds
    money = None if room.money is None else room.money + period.extra_budget
    taken_deeds = period.deeds_used + period.deeds_reserved
    taken_money = period.money_used + period.money_reserved
    accepted: list[Wanted] = []
    refused: dict[uuid.UUID, Problem] = {}
    for one in wanted:
        cost = room.costs[one.source_id][1]
        if deeds is not None and taken_deeds + 1 > deeds:
            refused[one.source_id] = quota_answers.deeds_exceeded(period, deeds, taken_deeds)
        elif money is not None and taken_money + cost > money:
            refused[one.source_id] = quota_answers.budget_exceeded(period, money, taken_money, room.currency)
        else:
            accepted.append(one)
            taken_deeds += 1
            taken_money += cost
    return accepted, refused
