"""Tells that a quota or budget is half used, nearly used, used up: each once for a period.

The period's row holds what was told. It is locked by the caller's UPDATE, or here, so that of many
orders that cross a threshold at once one tells.
"""

import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

from django.db import transaction
from django.utils import timezone

from billing import periods
from billing.models import BillingPeriod
from billing.signals import quota_exceeded, quota_threshold_reached
from keys.models import Partner
from partner_api.http.problems import Problem

THRESHOLDS: Final = (50, 80, 100)
_QUOTAS: Final = {"quota_exceeded": "deeds", "budget_exceeded": "budget"}


def thresholds(
    period_id: uuid.UUID,
    *,
    deeds: int | None = None,
    money: Decimal | None = None,
    requests: int | None = None,
) -> None:
    """Tells of each threshold that is reached now. The limits are without what staff granted."""
    period = BillingPeriod.objects.select_for_update(no_key=True).select_related("partner").get(pk=period_id)
    for quota, percent in _reached(period, deeds=deeds, money=money, requests=requests):
        _tell_once(period, quota, percent)


def is_due(
    period: BillingPeriod,
    *,
    deeds: int | None = None,
    money: Decimal | None = None,
    requests: int | None = None,
) -> bool:
    """Whether there is anything to tell of a period whose row the caller has just changed and holds."""
    reached = _reached(period, deeds=deeds, money=money, requests=requests)
    return any(_mark(quota, percent) not in period.told for quota, percent in reached)


def _reached(
    period: BillingPeriod, *, deeds: int | None, money: Decimal | None, requests: int | None
) -> Iterator[tuple[str, int]]:
    levels: tuple[tuple[str, int | Decimal | None, int | Decimal, int | Decimal], ...] = (
        ("deeds", deeds, period.extra_deeds, period.deeds_used + period.deeds_reserved),
        ("budget", money, period.extra_budget, period.money_used + period.money_reserved),
        ("requests", requests, period.extra_requests, period.requests_used),
    )
    for quota, limit, extra, level in levels:
        if limit is None or limit + extra <= 0:
            continue
        for percent in THRESHOLDS:
            if level * 100 >= (limit + extra) * percent:
                yield quota, percent


def refusal(partner: Partner, problem: Problem, period: BillingPeriod | None = None) -> None:
    """Tells, once a period, that orders or requests are refused for lack of quota or budget.

    `period` is the running one where the caller has read it; it knows afterwards that it was told. In a
    transaction of its own where the order's was rolled back.
    """
    quota = problem.extra.get("quota") or _QUOTAS.get(problem.code)
    if quota is None:
        return
    found = period or periods.at(partner, timezone.now())
    if _mark(quota, None) in found.told:
        return
    with transaction.atomic():
        locked = (
            BillingPeriod.objects.select_for_update(no_key=True).select_related("partner").get(pk=found.pk)
        )
        _tell_once(locked, quota, None)
    found.told = locked.told


def _mark(quota: str, percent: int | None) -> str:
    return f"{quota}:{'exceeded' if percent is None else percent}"


def _tell_once(period: BillingPeriod, quota: str, percent: int | None) -> None:
    mark = _mark(quota, percent)
    if mark in period.told:
        return
    period.told = [*period.told, mark]
    period.save(update_fields=["told"])
    news: dict[str, Any] = {
        "partner": period.partner,
        "quota": quota,
        "percent": 100 if percent is None else percent,
        "period_start": period.starts_at,
    }
    signal = quota_exceeded if percent is None else quota_threshold_reached
    signal.send(sender=BillingPeriod, **news)
