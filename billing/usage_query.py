"""What may be asked about usage, and how the answer looks."""

import datetime as dt
import re
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from django.utils import timezone
from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from billing.usage import DAY, Group, Interval, Point, Question, Range, total_of
from keys.models import ApiKey, Partner
from partner_api.http.problems import invalid
from partner_api.http.reading import Strict, in_query
from partner_api.http.times import rfc3339

DEFAULT_LENGTH: Final[dict[str, dt.timedelta]] = {"hour": 2 * DAY, "day": 30 * DAY}
MAX_LENGTH: Final[dict[str, dt.timedelta]] = {"hour": 31 * DAY, "day": 400 * DAY}
MAX_POINTS: Final = 10_000
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def _moment(value: Any) -> dt.datetime:
    """RFC 3339 with its zone, or a date, which is its midnight in UTC."""
    # A `+` that was not escaped arrives as a space.
    text = str(value).replace(" ", "+")
    try:
        moment = dt.datetime.fromisoformat(f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text)
        # The ends of Python's calendar leave no room for an hour more.
        if moment.tzinfo is not None and 2000 <= moment.year <= 2199:  # noqa: PLR2004 - no usage is outside
            return moment.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        pass
    raise PydanticCustomError(
        "invalid_value",
        "It must be a date, 2026-11-24, or a time in RFC 3339 with its zone, 2026-11-24T08:00:00Z.",
    )


Moment = Annotated[dt.datetime, BeforeValidator(_moment)]


class _RangeQuery(Strict):
    from_: Moment | None = Field(
        None,
        alias="from",
        description="RFC 3339 or a date; included. 30 days, or 2 by the hour, before `to` unless given.",
    )
    to: Moment | None = Field(None, description="RFC 3339 or a date; excluded. Now unless given.")
    interval: Interval = "day"

    def range(self) -> Range:
        """Raises Problem `validation_error` for a range that is empty, or too long for the interval."""
        end = self.to or timezone.now()
        start = self.from_ or end - DEFAULT_LENGTH[self.interval]
        if start >= end:
            raise invalid([in_query("from", "invalid_value", "It must be before `to`.")])
        longest = MAX_LENGTH[self.interval]
        if end - start > longest:
            message = f"By the {self.interval}, the range may have {longest.days} days at the most."
            raise invalid([in_query("from", "invalid_value", message)])
        return Range.around(start, end)


class UsageQuery(_RangeQuery):
    """The parameters of `GET /v2/usage`."""

    group_by: Literal["key", "route", "status", "deed_type"] | None = None


class StaffUsageQuery(_RangeQuery):
    """The parameters of `GET /admin-api/v1/usage`."""

    group_by: Group | None = None
    partner: UUID | None = Field(None, description="One partner's usage; all partners' without it.")
    livemode: bool | None = Field(None, description="One mode; both, and refused keys, without it.")


class LatencyAnswer(BaseModel):
    """Milliseconds; off by 4.5 % at the most."""

    p50: float | None
    p95: float | None
    p99: float | None


class UsageSums(BaseModel):
    requests: int
    errors: int = Field(description="Answers of 400 and above.")
    deeds: int = Field(description="New deeds that requests ordered. Those of inbound webhooks are in none.")
    cost_units: int
    bytes_in: int
    bytes_out: int
    latency_ms: LatencyAnswer


class UsagePoint(UsageSums):
    period: dt.datetime = Field(description="The period's first moment.")
    key: UUID | None = Field(None, description="With `group_by=key`: the key's id.")
    key_prefix: str | None = Field(None, description="With `group_by=key`: how the key begins.")
    route: str | None = Field(
        None,
        description="With `group_by=route`: `POST /v2/deeds`; the method alone for a path that there is not.",
    )
    status: int | None = Field(None, description="With `group_by=status`.")
    deed_type: str | None = Field(
        None, description="With `group_by=deed_type`; null without a deed, `mixed` for a batch of several."
    )


class UsageAnswer(BaseModel):
    """Periods without a request are left out."""

    data: list[UsagePoint]
    totals: UsageSums
    from_: dt.datetime = Field(alias="from", description="The first hour counted.")
    to: dt.datetime = Field(description="The end of the last hour counted.")
    interval: Interval
    group_by: str | None


class StaffUsagePoint(UsagePoint):
    partner: UUID | None = Field(None, description="With `group_by=partner`.")
    partner_name: str | None = Field(None, description="With `group_by=partner`.")


class StaffUsageAnswer(UsageAnswer):
    data: list[StaffUsagePoint]  # type: ignore[assignment]  # a list is only read here


def answer(question: Question, points: list[Point]) -> dict[str, Any]:
    """The answer's body. Raises Problem `validation_error` when it would be too long to be of use."""
    if len(points) > MAX_POINTS:
        message = f"The answer has more than {MAX_POINTS:,} lines; ask for fewer days, or by the day."
        raise invalid([in_query("interval", "invalid_value", message)])
    names = _names(question.group, {point.group for point in points})
    return {
        "data": [
            {"period": rfc3339(point.period), **names.get(point.group, {}), **point.sums.as_dict()}
            for point in points
        ],
        "totals": total_of(points).as_dict(),
        "from": rfc3339(question.range.start),
        "to": rfc3339(question.range.end),
        "interval": question.interval,
        "group_by": question.group,
    }


def _names(group: Group | None, values: set[str]) -> dict[str, dict[str, Any]]:
    """How each group is named in the answer."""
    match group:
        case None:
            return {}
        case "key":
            keys = ApiKey.objects.filter(pk__in=values - {""}).only("environment", "key_id")
            known = {str(key.pk): {"key": str(key.pk), "key_prefix": key.prefix} for key in keys}
            return {value: known.get(value, {"key": value or None, "key_prefix": None}) for value in values}
        case "partner":
            partners = dict(Partner.objects.filter(pk__in=values - {""}).values_list("pk", "name"))
            named = {str(pk): name for pk, name in partners.items()}
            return {value: {"partner": value or None, "partner_name": named.get(value)} for value in values}
        case "status":
            return {value: {"status": int(value)} for value in values}
        case "route" | "deed_type":
            # A path that no route fits has a method only.
            return {value: {group: value.strip() or None} for value in values}
