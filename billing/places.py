"""Takes the place of one order in one statement, on terms that this process remembers.

An order by itself is what partners send most. What its place depends on (the period, the partner's quota
and cap, the contract and so the price) seldom changes: it is remembered from the last order, and the
statement that takes the place takes it only while all of that still holds. Where it does not, or there is
no room, nothing is taken and `billing.quotas` looks at everything anew.
"""

import datetime as dt
import json
import threading
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from billing.models import BillingPeriod
from partner_api import prepared

COUNTERS: Final = (
    "deeds_used",
    "deeds_reserved",
    "extra_deeds",
    "money_used",
    "money_reserved",
    "extra_budget",
)
# Whoever runs it holds the period's row until the commit, and all orders of the partner wait for that: what
# must be known of the row afterwards comes with it.
ROOM: Final = """
      (%(deeds)s::bigint IS NULL
       OR deeds_used + deeds_reserved + %(count)s <= %(deeds)s::bigint + extra_deeds)
  AND (%(money)s::numeric IS NULL
       OR money_used + money_reserved + %(amount)s <= %(money)s::numeric + extra_budget)
"""
_TAKE: Final = f"""
WITH taken AS (
  UPDATE billing_periods AS period
  SET deeds_reserved = deeds_reserved + %(count)s, money_reserved = money_reserved + %(amount)s
  FROM keys_partner AS partner
  WHERE period.id = %(period)s AND partner.id = period.partner_id
    AND period.starts_at <= %(now)s AND period.ends_at > %(now)s
    AND partner.monthly_deed_quota IS NOT DISTINCT FROM %(quota)s::bigint
    AND partner.budget_cap IS NOT DISTINCT FROM %(cap)s::numeric
    AND NOT EXISTS (
      SELECT FROM invoices
      WHERE partner_id = period.partner_id AND status = 'open' AND grace_ends_at <= %(now)s)
    AND (%(is_free)s OR (
      SELECT CASE WHEN ends_on IS NULL OR ends_on >= %(day)s THEN id END FROM contracts
      WHERE partner_id = period.partner_id AND withdrawn_at IS NULL AND starts_on <= %(day)s
      ORDER BY starts_on DESC LIMIT 1) IS NOT DISTINCT FROM %(contract)s::uuid)
    AND {ROOM}
  RETURNING {", ".join(COUNTERS)}, told::text
), reserved AS (
  INSERT INTO quota_reservations (source_id, period_id, item, amount, created_at)
  SELECT %(source)s, %(period)s, %(item)s, %(amount)s, %(now)s FROM taken
)
SELECT * FROM taken
"""  # noqa: S608 - names of our own
_MOST: Final = 10_000

# Whose order, of which type, and whether it replaces a deed.
Kind = tuple[uuid.UUID, str, bool]


@dataclass(frozen=True)
class Terms:
    """What the place of such an order depended on, and what it was. Money is in minor units.

    `is_free` says that no contract was asked, because nothing is limited. `deeds` and `money` are the
    limits, without what staff granted, and hold orders back where `is_hard`.
    """

    period_id: uuid.UUID
    ends_at: dt.datetime
    quota: int | None
    cap: Decimal | None
    contract_id: uuid.UUID | None
    is_free: bool
    is_hard: bool
    deeds: int | None
    money: Decimal | None
    item: str
    amount: Decimal


_remembered: dict[Kind, Terms] = {}
_lock = threading.Lock()


def recall(kind: Kind) -> Terms | None:
    return _remembered.get(kind)


def remember(kind: Kind, terms: Terms) -> None:
    with _lock:
        if len(_remembered) >= _MOST:
            _remembered.clear()
        _remembered[kind] = terms


def forget(kind: Kind) -> None:
    with _lock:
        _remembered.pop(kind, None)


def take(terms: Terms, source_id: uuid.UUID, *, now: dt.datetime) -> BillingPeriod | None:
    """Takes an order's place; the period as it was left, or None where the terms no longer hold or fit."""
    facts: dict[str, Any] = {
        "period": terms.period_id,
        "now": now,
        "day": now.date(),
        "quota": terms.quota,
        "cap": terms.cap,
        "contract": terms.contract_id,
        "is_free": terms.is_free,
        "count": 1,
        "amount": terms.amount,
        "deeds": terms.deeds if terms.is_hard else None,
        "money": terms.money if terms.is_hard else None,
        "source": source_id,
        "item": terms.item,
    }
    with prepared.cursor() as cursor:
        cursor.execute(_TAKE, facts)
        left = cursor.fetchone()
    if left is None:
        return None
    *counters, told = left
    return BillingPeriod(
        id=terms.period_id,
        ends_at=terms.ends_at,
        told=json.loads(told),
        **dict(zip(COUNTERS, counters, strict=True)),
    )
