"""Tells staff long before it is too late that the ledger does not reach Stripe."""

import datetime as dt
from typing import Final

import structlog
from django.conf import settings
from django.core.cache import cache
from django.core.mail import send_mail
from django.db.models import Count, Min
from django.utils import timezone
from django_redis.exceptions import ConnectionInterrupted

from billing import stripe_client, syncing
from billing.models import LedgerEntry, StripeLane
from billing.stripe_metrics import OLDEST_UNSYNCED, UNSYNCED

log = structlog.get_logger(__name__)

_ONCE_SECONDS: Final = 24 * 3600
LIMIT: Final = dt.timedelta(days=35)


def watch() -> bool:
    """Measures what is unsent. True when staff was told, which happens once a day at most."""
    if not stripe_client.is_configured():
        return False
    now = timezone.now()
    facts = syncing.pending().aggregate(count=Count("pk"), oldest=Min("occurred_at"))
    age = now - facts["oldest"] if facts["oldest"] else dt.timedelta(0)
    UNSYNCED.set(facts["count"])
    OLDEST_UNSYNCED.set(max(0.0, age.total_seconds()))
    if age < dt.timedelta(days=settings.STRIPE_UNSYNCED_ALERT_DAYS):
        return False
    log.error("ledger_unsynced_too_long", entries=facts["count"], oldest_days=age.days)
    return _tell(facts["count"], age)


def _tell(count: int, age: dt.timedelta) -> bool:
    try:
        is_first = bool(cache.add("stripe-unsynced-told", value=True, timeout=_ONCE_SECONDS))
    except ConnectionInterrupted:
        is_first = True
    if not is_first or not settings.STAFF_EMAILS:
        return False
    left = max(0, (LIMIT - age).days)
    errors = StripeLane.objects.exclude(last_error="").values_list("last_error", flat=True).distinct()[:5]
    rejected = LedgerEntry.objects.filter(sync_state=LedgerEntry.SyncState.REJECTED).count()
    text = (
        f"{count} ledger entries have not reached Stripe; the oldest is {age.days} days old.\n"
        f"Stripe takes usage of the last {LIMIT.days} days: {left} days are left for it.\n"
        f"Rejected so far: {rejected}.\n\n"
        "What was last in the way:\n" + "".join(f"- {error}\n" for error in errors)
    )
    send_mail(f"{count} charges have not reached Stripe", text, None, settings.STAFF_EMAILS)
    return True
