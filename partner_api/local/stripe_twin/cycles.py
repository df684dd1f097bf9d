"""When a subscription's month ends, and what a usage costs at a price."""

import calendar
import datetime as dt
from decimal import ROUND_HALF_UP, Decimal

from partner_api.local.stripe_twin.world import Thing


def amount_of(price: Thing, quantity: int) -> int:
    """Minor units for a usage: per unit, packages of `transform_quantity`, or graduated tiers."""
    if price["billing_scheme"] == "per_unit":
        packages = Decimal(quantity)
        transform = price.get("transform_quantity")
        if transform:
            packages = Decimal(-(-quantity // int(transform["divide_by"])))
        return rounded(packages * Decimal(price["unit_amount_decimal"]))
    amount, below = Decimal(0), 0
    for tier in price["tiers"]:
        upper = quantity if tier["up_to"] in {None, "inf"} else min(quantity, int(tier["up_to"]))
        units = max(0, upper - below)
        amount += units * Decimal(tier.get("unit_amount_decimal") or tier.get("unit_amount") or 0)
        if units or below == 0:
            amount += Decimal(tier.get("flat_amount_decimal") or tier.get("flat_amount") or 0)
        below = max(below, upper)
        if upper == quantity:
            break
    return rounded(amount)


def following(day: int, moment: int) -> int:
    """The first midnight (UTC) after `moment` on this day of a month; in a shorter month, on its last."""
    start = dt.datetime.fromtimestamp(moment, dt.UTC)
    months = start.year * 12 + start.month - 1
    candidates = (_midnight(months + later, day) for later in (0, 1, 2))
    return next(candidate for candidate in candidates if candidate > moment)


def preceding(day: int, boundary: int) -> int:
    """The boundary before this one."""
    start = dt.datetime.fromtimestamp(boundary, dt.UTC)
    months = start.year * 12 + start.month - 1
    candidates = (_midnight(months - earlier, day) for earlier in (0, 1, 2))
    return next(candidate for candidate in candidates if candidate < boundary)


def _midnight(months: int, day: int) -> int:
    year, month = divmod(months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return int(dt.datetime(year, month + 1, min(day, last), tzinfo=dt.UTC).timestamp())


def rounded(amount: Decimal) -> int:
    return int(amount.quantize(Decimal(1), ROUND_HALF_UP))
