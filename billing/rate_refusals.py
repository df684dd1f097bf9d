"""A watch: keys that were refused for their rate more often than staff want to leave alone."""

import datetime as dt
from collections.abc import Iterator
from typing import Final

from django.conf import settings
from django.db.models import Count
from django.utils import timezone

from billing.models import ApiUsage
from keys.models import ApiKey
from partner_api.ops.watching import Finding

WINDOW: Final = dt.timedelta(minutes=5)
_TOO_MANY_REQUESTS: Final = 429


def rate_limited_keys() -> Iterator[Finding]:
    """By the request log of the last minutes, each key with WATCH_RATE_LIMITED_PER_KEY refusals or more."""
    # A revoked key that is tried again and again is refused by address: its rows have no partner.
    lately = ApiUsage.objects.filter(at__gte=timezone.now() - WINDOW, partner__isnull=False)
    refused = (
        lately.filter(status=_TOO_MANY_REQUESTS, key__isnull=False)
        .values("key_id")
        .annotate(refusals=Count("id"))
        .filter(refusals__gte=settings.WATCH_RATE_LIMITED_PER_KEY)
    )
    for key in ApiKey.objects.filter(pk__in=[row["key_id"] for row in refused]):
        yield Finding(key.prefix, f"the key {key.prefix} of partner {key.partner_id} is refused for its rate")
