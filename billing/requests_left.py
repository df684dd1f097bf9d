"""Refuses a partner's calls once its request quota is used up: to the request, however many come at once.

The request log counts what was answered (billing.requests_quota), a moment later. What was let in meanwhile
is counted in Redis, for partners with a quota only: one more round trip for them, none for the others. That
count begins anew from the period's row each hour, so that a process that died between the two leaves no
lasting difference; what was let in during the last seconds before and is not in the log yet may then come on
top of the quota. While Redis is away the row alone decides, as it was a few seconds ago.
"""

import datetime as dt
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any, Final

import structlog
from django.conf import settings
from django.utils import timezone
from django_redis import get_redis_connection
from redis.exceptions import RedisError
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from billing import periods, quota_answers, telling
from billing.models import BillingPeriod, Contract
from billing.requests_quota import is_counted
from keys.models import Partner
from keys.permissions import handled_as
from partner_api.breaker import Breaker

log = structlog.get_logger(__name__)

# Answers {whether there was room, how many were let in}; nothing where no count is kept.
_TAKE: Final = """
local let_in = redis.call('GET', KEYS[1])
if not let_in then return {} end
if tonumber(let_in) >= tonumber(ARGV[1]) then return {0, tonumber(let_in)} end
return {1, redis.call('INCR', KEYS[1])}
"""
# A count that began anew since has not counted what is given back.
_GIVE_BACK: Final = """
local let_in = redis.call('GET', KEYS[1])
if let_in and tonumber(let_in) > 0 then redis.call('DECR', KEYS[1]) end
"""
_KEPT_SECONDS: Final = 3600
_PARTNERS_REMEMBERED: Final = 10_000
# Whoever goes on calling when it is refused has the period looked up once in so long.
_FRESH_SECONDS: Final = 1.0
# What a partner needs to see why it is refused.
_ALWAYS: Final = {"billing:read", "usage:read"}


class WithinRequestQuota(BasePermission):
    """Raises Problem `quota_exceeded` for a live key whose partner's request quota is used up."""

    def has_permission(self, request: Request, view: Any) -> bool:
        key = getattr(request, "api_key", None)
        if key is None or not key.livemode or key.partner.monthly_request_quota is None:
            return True
        if getattr(view, "scopes", {}).get(handled_as(request)) not in _ALWAYS:
            _let_in(request, key.partner)
        return True


@dataclass(frozen=True, slots=True)
class _Room:
    """What a partner's running period allowed and had used when it was read."""

    period: BillingPeriod
    limit: int
    is_soft: bool
    quota: int
    read_at: float

    def is_current(self, *, seconds: float) -> bool:
        """Whether it was read within so many seconds, and is about the running period."""
        return time.monotonic() - self.read_at < seconds and timezone.now() < self.period.ends_at


_rooms: dict[uuid.UUID, _Room] = {}
_lock = threading.Lock()
_breaker = Breaker()


def give_back(request: Any, status: int) -> None:
    """After the answer: what does not count after all (refused for another reason, failed) is given back."""
    period_id = getattr(request, "let_in_period", None)
    if period_id is None or is_counted(livemode=True, status=status):
        return
    try:
        _redis().eval(_GIVE_BACK, 1, _name(period_id))
    except RedisError as error:
        log.warning("request_not_given_back", reason=type(error).__name__)


def _let_in(request: Request, partner: Partner) -> None:
    room = _rooms.get(partner.pk)
    is_known = room is not None and room.quota == partner.monthly_request_quota
    if room is None or not is_known or not room.is_current(seconds=settings.REQUEST_QUOTA_SECONDS):
        room = _read(partner)
    used = _take(request, room)
    if used is not None and not room.is_current(seconds=_FRESH_SECONDS):
        # Staff may have granted more a moment ago.
        room = _read(partner)
        used = _take(request, room)
    if used is not None:
        problem = quota_answers.requests_exceeded(room.period, room.limit, used)
        telling.refusal(partner, problem, period=room.period)
        raise problem


def _take(request: Request, room: _Room) -> int | None:
    """None for a request that was let in; else how many are used."""
    if room.is_soft:
        return None
    if room.period.requests_used >= room.limit:
        return int(room.period.requests_used)
    answer = _count(room)
    if not answer:
        return None
    is_let_in, used = answer
    if not is_let_in:
        return used
    request._request.let_in_period = room.period.pk  # type: ignore[attr-defined]  # noqa: SLF001 - the middleware sees only that one
    return None


def _count(room: _Room) -> list[int]:
    """What the script answers; nothing while Redis is away."""
    moment = settings.LIMITER_REDIS_RETRY_SECONDS
    if not _breaker.may_ask(after_seconds=moment):
        return []
    name = _name(room.period.pk)
    try:
        answer: list[int] = _redis().eval(_TAKE, 1, name, room.limit)
        if not answer:
            # What is remembered of the row may be seconds old, and the count would begin as much too low.
            used = BillingPeriod.objects.values_list("requests_used", flat=True).get(pk=room.period.pk)
            _redis().set(name, used, ex=_KEPT_SECONDS, nx=True)
            answer = _redis().eval(_TAKE, 1, name, room.limit)
    except RedisError as error:
        if _breaker.failed(after_seconds=moment):
            log.warning("request_quota_without_redis", reason=type(error).__name__)
        return []
    _breaker.succeeded()
    return answer


def _read(partner: Partner) -> _Room:
    now = timezone.now()
    period = periods.at(partner, now)
    quota = partner.monthly_request_quota or 0
    room = _Room(period, quota + period.extra_requests, _is_soft(partner, now), quota, time.monotonic())
    with _lock:
        if len(_rooms) >= _PARTNERS_REMEMBERED:
            _rooms.clear()
        _rooms[partner.pk] = room
    return room


def _is_soft(partner: Partner, now: dt.datetime) -> bool:
    contract = Contract.objects.in_force(partner.pk, now.date())
    return contract is not None and contract.is_soft


def _redis() -> Any:
    return get_redis_connection("limiter")


def _name(period_id: uuid.UUID) -> str:
    return f"partner_api:requests:{period_id}"
