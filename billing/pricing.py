"""The arithmetic of money: what things cost, over which days, and where it is rounded.

Pure functions over Decimals. Amounts are in minor units (cents for USD) and exact; `rounded` is the one
place where a fraction of a minor unit is given up, and it is called once for each invoice line. Days
and periods are those of UTC.
"""

import calendar
import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

# ISO 4217's currencies whose minor unit is not a hundredth.
_EXPONENTS: Final = {
    **dict.fromkeys(
        (
            "BIF",
            "CLP",
            "DJF",
            "GNF",
            "JPY",
            "KMF",
            "KRW",
            "PYG",
            "RWF",
            "UGX",
            "VND",
            "VUV",
            "XAF",
            "XOF",
            "XPF",
        ),
        0,
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}
REQUESTS_A_PRICE: Final = 1000


@dataclass(frozen=True)
class Tier:
    """What each unit costs that comes after `after_quantity` others in its period. In the main unit."""

    after_quantity: int
    unit_price: Decimal


@dataclass(frozen=True)
class Share:
    """So many units at one price."""

    quantity: int
    unit_price: Decimal


@dataclass(frozen=True)
class Span:
    """From `start` up to but without `end`."""

    start: dt.date
    end: dt.date

    @property
    def days(self) -> int:
        return (self.end - self.start).days


def exponent(currency: str) -> int:
    """How many decimals a currency's main unit has."""
    return _EXPONENTS.get(currency, 2)


def minor(amount: Decimal, currency: str) -> Decimal:
    """An amount of the main unit in minor units, exact."""
    return amount.scaleb(exponent(currency))


def major(amount: Decimal | int, currency: str) -> Decimal:
    """An amount of minor units in the main unit, with the currency's decimals."""
    return Decimal(amount).scaleb(-exponent(currency))


def rounded(amount: Decimal) -> int:
    """Whole minor units: half a unit goes away from zero, as on a merchant's invoice."""
    return int(amount.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def shares(tiers: Sequence[Tier], *, before: int, quantity: int) -> Iterator[Share]:
    """How `quantity` more units, after `before` others in the period, fall into graduated tiers.

    `tiers` are ordered and the first starts after 0.
    """
    done = before
    last = before + quantity
    for index, tier in enumerate(tiers):
        end = tiers[index + 1].after_quantity if index + 1 < len(tiers) else last
        here = min(last, end) - done
        if here > 0:
            yield Share(here, tier.unit_price)
            done += here


def period_of(day: dt.date, anchor_day: int) -> Span:
    """The period that contains a day: from the anchor day of one month to that of the next.

    In a month that is shorter the anchor is its last day.
    """
    start = _anchor(day.year, day.month, anchor_day)
    if day < start:
        start = _anchor(*_month_before(day.year, day.month), anchor_day)
    return Span(start, _anchor(*_month_after(start.year, start.month), anchor_day))


def prorated(fee: Decimal, *, days: int, of_days: int) -> Decimal:
    """The part of a period's fee for some of its days, exact to ten places of a minor unit."""
    return (fee * days / of_days).quantize(Decimal("1E-10"), rounding=ROUND_HALF_UP)


def midnight(day: dt.date) -> dt.datetime:
    """The day's first moment."""
    return dt.datetime.combine(day, dt.time(), dt.UTC)


def overlap(one: Span, other: Span) -> int:
    """How many days two spans share."""
    return max(0, (min(one.end, other.end) - max(one.start, other.start)).days)


def _anchor(year: int, month: int, anchor_day: int) -> dt.date:
    return dt.date(year, month, min(anchor_day, calendar.monthrange(year, month)[1]))


def _month_before(year: int, month: int) -> tuple[int, int]:
    return (year, month - 1) if month > 1 else (year - 1, 12)


def _month_after(year: int, month: int) -> tuple[int, int]:
    return (year, month + 1) if month < 12 else (year + 1, 1)  # noqa: PLR2004 - months
