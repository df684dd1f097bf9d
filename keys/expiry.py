"""Keys that will expire soon with nothing in their place: for Prometheus, so that no partner learns it from a
401.
"""

import datetime as dt
from collections.abc import Iterator
from typing import Final

from django.utils import timezone
from prometheus_client.core import GaugeMetricFamily, Metric

from keys.models import ApiKey, Partner

_SOON: Final = dt.timedelta(days=7)


def expiring_soon() -> Iterator[Metric]:
    """Live keys of active partners; one that was revoked ends nothing, one that was rotated has another."""
    now = timezone.now()
    ending = ApiKey.objects.not_ended(now).filter(
        environment=ApiKey.Environment.LIVE,
        replaced_by=None,
        expires_at__lte=now + _SOON,
        partner__status=Partner.Status.ACTIVE,
    )
    yield GaugeMetricFamily(
        "partner_api_keys_expiring_soon",
        "Live keys without a successor that expire within a week.",
        value=ending.count(),
    )
