"""What staff see of usage: figures, series and tables of a range, all from the rollups."""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final
from uuid import UUID

from billing import revenue, usage
from billing.latency import percentiles
from billing.usage import DAY, HOUR, Question, Range, Sums, total_of
from keys.models import ApiKey, Partner

PRESETS: Final = {
    "24h": ("24 hours", DAY),
    "7d": ("7 days", 7 * DAY),
    "30d": ("30 days", 30 * DAY),
    "90d": ("90 days", 90 * DAY),
    "12m": ("12 months", 365 * DAY),
}
# Beyond as many hours the bars would be thinner than can be read.
HOURS_UP_TO: Final = 7 * DAY + HOUR
TOP: Final = 10


@dataclass(frozen=True)
class Line:
    """One row of a table: whose, and what."""

    name: str
    sums: Sums

    @property
    def error_rate(self) -> float:
        return self.sums.errors / self.sums.requests if self.sums.requests else 0.0


@dataclass(frozen=True)
class Dashboard:
    """`periods` and `points` are of the same length: every period of the range, with or without requests."""

    question: Question
    periods: Sequence[dt.datetime]
    points: Sequence[Sums]
    total: Sums
    partners: Sequence[Line]
    routes: Sequence[Line]
    statuses: Sequence[Line]
    rate_limited: Sequence[Line]
    failing: Sequence[Line]
    revenue: dict[str, list[Decimal]]

    @property
    def latency(self) -> list[dict[str, float | None]]:
        return [percentiles(point.latency) for point in self.points]


def question_of(span: Range, *, partner: UUID | None, livemode: bool | None) -> Question:
    """What is asked of a range: by the hour, or of a longer one by the day, and then of whole days only."""
    if span.length <= HOURS_UP_TO:
        return Question(span, "hour", partner=partner, livemode=livemode)
    whole = Range(usage.floor(span.start, "day"), usage.ceil(span.end, "day"))
    return Question(whole, "day", partner=partner, livemode=livemode)


def look(question: Question) -> Dashboard:
    """The dashboard of a question that `question_of` made."""
    points = {point.period: point.sums for point in usage.series(question)}
    periods = _periods(question)
    keys = _named_keys(usage.by_group(replace(question, group="key", with_latency=False)))
    return Dashboard(
        question,
        periods,
        [points.get(period, Sums()) for period in periods],
        total_of(usage.series(replace(question, interval=None))),
        partners=_most(_partners(question), lambda line: line.sums.requests),
        routes=_most(
            _lines(usage.by_group(replace(question, group="route"))), lambda line: line.sums.requests
        ),
        statuses=_most(
            _lines(usage.by_group(replace(question, group="status", with_latency=False))),
            lambda line: line.sums.requests,
        ),
        rate_limited=_most(keys, lambda line: line.sums.rate_limited),
        failing=_most(keys, lambda line: line.sums.errors - line.sums.rate_limited),
        revenue=_money(question, periods),
    )


def _partners(question: Question) -> list[Line]:
    sums = usage.by_group(replace(question, group="partner", with_latency=False))
    names = dict(Partner.objects.filter(pk__in=sums.keys() - {""}).values_list("pk", "name"))
    named = {str(pk): name for pk, name in names.items()}
    return [Line(named.get(group, "no key accepted"), one) for group, one in sums.items()]


def _named_keys(sums: dict[str, Sums]) -> list[Line]:
    keys = ApiKey.objects.filter(pk__in=sums.keys() - {""}).select_related("partner")
    named = {str(key.pk): f"{key.prefix} ({key.partner.name})" for key in keys}
    return [Line(named.get(group, "no key accepted"), one) for group, one in sums.items()]


def _lines(sums: dict[str, Sums]) -> list[Line]:
    return [Line(group.strip(), one) for group, one in sums.items()]


def _most(lines: list[Line], measure: Callable[[Line], int]) -> list[Line]:
    return sorted((line for line in lines if measure(line)), key=measure, reverse=True)[:TOP]


def _periods(question: Question) -> list[dt.datetime]:
    step = HOUR if question.interval == "hour" else DAY
    period, periods = question.range.start, []
    while period < question.range.end:
        periods.append(period)
        period += step
    return periods


def _money(question: Question, periods: Sequence[dt.datetime]) -> dict[str, list[Decimal]]:
    return {
        currency: [amounts.get(period, Decimal(0)) for period in periods]
        for currency, amounts in revenue.by_period(question).items()
    }
