"""Tells partners of keys that will end, or that their rotation policy wants replaced: once for each key."""

import datetime as dt

import structlog
from django.conf import settings
from django.core.mail import send_mail
from django.db import transaction
from django.db.models import DateTimeField, DurationField, ExpressionWrapper, F, Q, QuerySet, Value
from django.utils import timezone

from keys.models import ApiKey
from keys.signals import key_expiring

log = structlog.get_logger(__name__)


def warn() -> int:
    """Sends the event and the e-mail for each key that enters the last KEY_WARNING_DAYS; their number."""
    warned = 0
    for key in ending_soon(timezone.now()).filter(rotation_warned_at=None)[:500]:
        with transaction.atomic():
            unwarned = ApiKey.objects.filter(pk=key.pk, rotation_warned_at=None)
            if not unwarned.update(rotation_warned_at=timezone.now()):
                continue
            key_expiring.send(sender=ApiKey, key=key)
        _write_to(key)
        warned += 1
    return warned


def ending_soon(now: dt.datetime) -> QuerySet[ApiKey]:
    """Keys in use that end within KEY_WARNING_DAYS, or are due for rotation by then."""
    until = now + dt.timedelta(days=settings.KEY_WARNING_DAYS)
    day = Value(dt.timedelta(days=1), output_field=DurationField())
    max_age = ExpressionWrapper(F("partner__key_max_age_days") * day, output_field=DurationField())
    in_use = ApiKey.objects.filter(revoked_at=None, replaced_by=None, partner__status="active").filter(
        Q(expires_at=None) | Q(expires_at__gt=now)
    )
    ends = Q(expires_at__lte=until) | Q(partner__key_max_age_days__isnull=False, due_at__lte=until)
    return (
        in_use.annotate(due_at=ExpressionWrapper(F("created_at") + max_age, output_field=DateTimeField()))
        .filter(ends)
        .select_related("partner")
        .order_by("pk")
    )


def _write_to(key: ApiKey) -> None:
    """Best effort: the event was stored, and staff see the key in their list."""
    if not key.partner.contact_email:
        return
    ends = min(moment for moment in (key.expires_at, key.rotation_due_at()) if moment is not None)
    text = (
        f"The API key {key.prefix} ({key.name}) of {key.partner.name} ends, or is due for rotation, on "
        f"{ends:%Y-%m-%d %H:%M} UTC.\n\nRotate it with POST /v2/keys/{key.pk}/rotate: the new key works at "
        "once, and the old one stays valid for the overlap that you choose.\n"
    )
    try:
        send_mail(
            f"API key {key.prefix}: rotate it by {ends:%Y-%m-%d}", text, None, [key.partner.contact_email]
        )
    except OSError as error:
        log.warning("key_warning_not_mailed", key=key.prefix, reason=type(error).__name__)
