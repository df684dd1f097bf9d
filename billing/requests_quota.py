"""Counts a period's requests: the request log does it in the transaction that stores its rows.

billing.requests_left refuses what is beyond the quota.
"""

import datetime as dt
import json
import uuid
from collections.abc import Mapping
from typing import Final

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from billing import periods, telling
from billing.models import BillingPeriod
from keys.models import Partner
from partner_api import prepared

# Adds to all periods that are open, in one statement; answers whose they are, and what there may be to tell.
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
RETURNING period.id, period.partner_id, period.starts_at, period.ends_at, period.requests_used,
  period.extra_requests, period.told::text, partner.monthly_request_quota
"""


def is_counted(*, livemode: bool, status: int) -> bool:
    """Whether an answered request counts: live ones, unless we refused or failed to serve them."""
    return livemode and status not in {401, 402, 403, 429} and status < 500  # noqa: PLR2004 - HTTP's classes


@transaction.atomic(savepoint=False)
def count(requests: Mapping[tuple[uuid.UUID, dt.datetime], int]) -> None:
    """Adds so many requests of a partner at a moment. Call it once for each request, with its log row.

    What a clock that is wrong puts later than now, or before the partner was there, counts at that end: in a
    period of another time nobody would find it. Periods are locked in one order, so that two writers of the
    log don't wait for each other.
    """
    requests = _until(timezone.now(), requests)
    given = [
        {"partner_id": str(partner_id), "at": moment.isoformat(), "number": number}
        for (partner_id, moment), number in requests.items()
    ]
    if not given:
        return
    with prepared.cursor() as cursor:
        cursor.execute(_COUNT, [json.dumps(given)])
        counted = cursor.fetchall()
    for period_id, *_, used, extra, told, quota in counted:
        period = BillingPeriod(requests_used=used, extra_requests=extra, told=json.loads(told))
        if quota is not None and telling.is_due(period, requests=quota):
            telling.thresholds(period_id, requests=quota)
    spans = [(partner_id, starts_at, ends_at) for _, partner_id, starts_at, ends_at, *_ in counted]
    _count_singly(
        {
            (partner_id, moment): number
            for (partner_id, moment), number in requests.items()
            if not any(whose == partner_id and start <= moment < end for whose, start, end in spans)
        }
    )


def _until(
    now: dt.datetime, requests: Mapping[tuple[uuid.UUID, dt.datetime], int]
) -> dict[tuple[uuid.UUID, dt.datetime], int]:
    counted: dict[tuple[uuid.UUID, dt.datetime], int] = {}
    for (partner_id, moment), number in requests.items():
        at = (partner_id, min(moment, now))
        counted[at] = counted.get(at, 0) + number
    return counted


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
        period = periods.open_at(partner, max(moment, partner.created_at))
        BillingPeriod.objects.filter(pk=period.pk).update(requests_used=F("requests_used") + number)
        if partner.monthly_request_quota is not None:
            telling.thresholds(period.pk, requests=partner.monthly_request_quota)
