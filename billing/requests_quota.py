"""Counts a period's requests, and refuses a partner's calls once its request quota is used up.

The request log counts here in the transaction that stores its rows. A process asks now and then who is
out of requests, so that a request itself costs nothing; a quota is exceeded by what comes within those
seconds.
"""

import datetime as dt
import json
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from billing import periods, telling
from billing.models import BillingPeriod, Contract
from keys.models import Partner
from partner_api.http.problems import Problem
from partner_api.http.times import rfc3339

# Adds to all periods that are open, in one statement; answers whose they are, and the partner's quota.
_COUNT: Final = """
WITH given AS (
  SELECT * FROM jsonb_to_recordset(%s::jsonb) AS given(partner_id uuid, at timestamptz, number bigint)
), open AS MATERIALIZED (
  SELECT id, partner_id, starts_at, ends_at FROM billing_periods AS period
  WHERE closed_at IS NULL AND EXISTS (
    SELECT FROM given WHERE given.partner_id = period.partner_id
      AND given.at >= period.starts_at AND given.at < period.ends_at)
  ORDER BY partner_id, starts_at FOR NO KEY UPDATE
), counted AS (
  SELECT open.id, sum(number) AS number
  FROM open JOIN given ON given.partner_id = open.partner_id
    AND given.at >= open.starts_at AND given.at < open.ends_at
  GROUP BY open.id
)
UPDATE billing_periods AS period SET requests_used = requests_used + counted.number
FROM counted, keys_partner AS partner
WHERE period.id = counted.id AND partner.id = period.partner_id
RETURNING period.id, period.partner_id, period.starts_at, period.ends_at, partner.monthly_request_quota
"""
# What a partner needs to see why it is refused.
_ALWAYS: Final = {"billing:read", "usage:read"}


def is_counted(*, livemode: bool, status: int) -> bool:
    """Whether an answered request counts: live ones, unless we refused or failed to serve them."""
    return livemode and status not in {401, 402, 403, 429} and status < 500  # noqa: PLR2004 - HTTP's classes


@transaction.atomic
def count(requests: Mapping[tuple[uuid.UUID, dt.datetime], int]) -> None:
    """Adds so many requests of a partner at a moment. Call it once for each request, with its log row.

    Periods are locked in one order, so that two writers of the log don't wait for each other.
    """
    given = [
        {"partner_id": str(partner_id), "at": moment.isoformat(), "number": number}
        for (partner_id, moment), number in requests.items()
    ]
    if not given:
        return
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, [json.dumps(given)])
        counted = cursor.fetchall()
    for period_id, *_, quota in counted:
        if quota is not None:
            telling.thresholds(period_id, requests=quota)
    spans = [(partner_id, starts_at, ends_at) for _, partner_id, starts_at, ends_at, _ in counted]
    _count_singly(
        {
            (partner_id, moment): number
            for (partner_id, moment), number in requests.items()
            if not any(whose == partner_id and start <= moment < end for whose, start, end in spans)
        }
    )


def _count_singly(requests: Mapping[tuple[uuid.UUID, dt.datetime], int]) -> None:
    """Those whose period must be made first, or is closed already."""
    if not requests:
        return
    partners = Partner.objects.in_bulk({partner_id for partner_id, _ in requests})
    for (partner_id, moment), number in sorted(
        requests.items(), key=lambda item: (str(item[0][0]), item[0][1])
    ):
        partner = partners.get(partner_id)
        if partner is None:
            continue  # the log keeps rows of partners that are gone
        period = periods.open_at(partner, moment)
        BillingPeriod.objects.filter(pk=period.pk).update(requests_used=F("requests_used") + number)
        if partner.monthly_request_quota is not None:
            telling.thresholds(period.pk, requests=partner.monthly_request_quota)


class WithinRequestQuota(BasePermission):
    """Raises Problem `quota_exceeded` for a live key whose partner's request quota is used up."""

    def has_permission(self, request: Request, view: Any) -> bool:
        key = getattr(request, "api_key", None)
        if key is None or not key.livemode:
            return True
        if getattr(view, "scopes", {}).get(request.method) in _ALWAYS:
            return True
        ends_at = _exhausted.of(key.partner_id)
        if ends_at is not None:
            detail = (
                "All requests of this period are used. The next period starts "
                f"{ends_at:%Y-%m-%d}; ask us for a larger quota, or for more in this period."
            )
            raise Problem(
                "quota_exceeded", detail, extra={"quota": "requests", "resets_at": rfc3339(ends_at)}
            )
        return True


class _Exhausted:
    """Who is out of requests, as of a few seconds ago; one query a process each time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[uuid.UUID, dt.datetime] = {}
        self._read_at: float | None = None

    def of(self, partner_id: uuid.UUID) -> dt.datetime | None:
        """The end of the period in which the partner has no requests left, or None."""
        with self._lock:
            now = time.monotonic()
            if self._read_at is None or now - self._read_at > settings.REQUEST_QUOTA_SECONDS:
                self._known, self._read_at = _read(timezone.now()), now
            return self._known.get(partner_id)

    def forget(self) -> None:
        """The next question is answered from the database."""
        with self._lock:
            self._read_at = None


_exhausted = _Exhausted()
forget = _exhausted.forget


def _read(now: dt.datetime) -> dict[uuid.UUID, dt.datetime]:
    running = BillingPeriod.objects.filter(
        starts_at__lte=now,
        ends_at__gt=now,
        partner__monthly_request_quota__lte=F("requests_used") - F("extra_requests"),
    )
    found = {period.partner_id: period.ends_at for period in running}
    for partner_id in list(found):
        contract = Contract.objects.in_force(partner_id, now.date())
        if contract is not None and contract.quota_mode == Contract.QuotaMode.SOFT:
            del found[partner_id]
    return found
