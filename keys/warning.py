"""Tells partners of keys that will expire, or that their policy wants replaced: once for each such day."""

import datetime as dt
from typing import Any

import structlog
from django.conf import settings
from django.core.mail import send_mail
from django.db import transaction
from django.db.models import Case, F, Q, QuerySet, When
from django.utils import timezone

from keys.models import ApiKey, Partner
from keys.signals import key_expiring

log = structlog.get_logger(__name__)


def warn() -> int:
    """Sends the event and the e-mail for each key that enters the last KEY_WARNING_DAYS; their number."""
    warned = 0
    key: Any  # with `ends_at`
    for key in _untold(ending_soon(timezone.now()))[:500]:
        with transaction.atomic():
            facts = {"rotation_warned_at": timezone.now(), "warned_for": key.ends_at}
            if not ApiKey.objects.filter(_is_another_end(key.ends_at), pk=key.pk).update(**facts):
                continue
            key_expiring.send(sender=ApiKey, key=key)
        _write_to(key)
        warned += 1
    return warned


def ending_soon(now: dt.datetime) -> QuerySet[ApiKey]:
    """Keys of active partners that expire within KEY_WARNING_DAYS, or are due for rotation by then.

    `ends_at` is the expiry where it is so near, because a rotation does not move it; else the day when the
    rotation is due.
    """
    until = now + dt.timedelta(days=settings.KEY_WARNING_DAYS)
    kept = ApiKey.objects.not_ended(now).filter(replaced_by=None, partner__status=Partner.Status.ACTIVE)
    return (
        kept.with_rotation_due()
        .filter(Q(expires_at__lte=until) | Q(due_at__lte=until))
        .annotate(ends_at=Case(When(expires_at__lte=until, then="expires_at"), default="due_at"))
        .select_related("partner")
        .order_by("pk")
    )


def _untold(keys: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
    return keys.filter(_is_another_end(F("ends_at")))


def _is_another_end(ends_at: F | dt.datetime) -> Q:
    return Q(warned_for=None) | ~Q(warned_for=ends_at)


def _write_to(key: Any) -> None:
    """Best effort: the event was stored, and staff see the key in their list."""
    if not key.partner.contact_email:
        return
    ends = key.ends_at
    named = f"The API key {key.prefix} ({key.name}) of {key.partner.name}"
    if ends == key.expires_at:
        text = (
            f"{named} expires on {ends:%Y-%m-%d %H:%M} UTC.\n\nA rotation does not change that: the new key "
            "would expire at the same time. Ask us for a new key, or to have this one extended.\n"
        )
    else:
        text = (
            f"{named} is due for rotation on {ends:%Y-%m-%d %H:%M} UTC.\n\nRotate it with "
            f"POST /v2/keys/{key.pk}/rotate: the new key works at once, and the old one stays valid for the "
            "overlap that you choose.\n"
        )
    what = "it expires on" if ends == key.expires_at else "rotate it by"
    try:
        send_mail(f"API key {key.prefix}: {what} {ends:%Y-%m-%d}", text, None, [key.partner.contact_email])
    except OSError as error:
        log.warning("key_warning_not_mailed", key=key.prefix, reason=type(error).__name__)
