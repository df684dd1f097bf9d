"""What can be done to a key and a partner: each act is one transaction with its audit entry and its news.

Every process keeps the keys that it sees in memory. An act marks the key as changing before it commits
and forgets it everywhere afterwards, so that the next request on any process meets the new state.

An act takes the audit trail's lock before it locks a row, and no row more strongly than its change needs:
who holds the lock looks at partners and keys when it commits, and two acts would wait for each other.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from keys import audit, key_cache
from keys.audit import Actor
from keys.models import ApiKey, Partner
from keys.signals import key_revoked, key_rotated
from partner_api.ops.checks import MAX_ROTATION_OVERLAP_SECONDS
from partner_api.ops.redaction import redact

EDITABLE: Final = (
    "name",
    "scopes",
    "rate_limit_per_minute",
    "rate_limit_burst",
    "allowed_cidrs",
    "not_before",
    "expires_at",
)
PARTNER_EDITABLE: Final = (
    "name",
    "contact_email",
    "status",
    "monthly_deed_quota",
    "monthly_request_quota",
    "budget_cap",
    "key_max_age_days",
)


def issue(
    actor: Actor,
    partner: Partner,
    *,
    name: str,
    environment: str,
    scopes: Sequence[str] = (),
    **fields: Any,
) -> tuple[ApiKey, str]:
    """A new key and its text, which is kept nowhere. Raises ValidationError by field."""
    with transaction.atomic():
        key, text = ApiKey.issue(partner, name=name, environment=environment, scopes=list(scopes), **fields)
        audit.record(actor, "key.issued", key, partner=partner, after=_facts(key))
    return key, text


def change(actor: Actor, key: ApiKey, *, reason: str = "", **fields: Any) -> None:
    """Changes EDITABLE fields, never the secret; nothing is written when nothing differs.

    Raises ValidationError by field, and for a key that was revoked.
    """
    _refuse_other(fields, EDITABLE)
    with key_cache.changing([key]), transaction.atomic():
        kept = _locked(key)
        if kept.revoked_at is not None:
            raise ValidationError("The key was revoked, for good; nothing of it can be changed.")
        if kept.replaced_by_id is not None and "expires_at" in fields:
            raise ValidationError({"expires_at": ["The key was rotated; it ends when its overlap does."]})
        before, after = _apply(kept, fields)
        if after:
            kept.full_clean(exclude=["partner"])
            kept.save(update_fields=list(fields))
            after = {name: getattr(kept, name) for name in after}
            audit.record(
                actor, "key.changed", kept, partner=kept.partner, before=before, after=after, reason=reason
            )
    key.refresh_from_db()


def revoke(actor: Actor, key: ApiKey, *, reason: str) -> bool:
    """Ends the key for good, from the next request on. False when it had ended before."""
    with key_cache.changing([key]), transaction.atomic():
        audit.lock()
        is_revoked = key.revoke(now=timezone.now(), reason=redact(reason))
        if is_revoked:
            audit.record(actor, "key.revoked", key, partner=key.partner, reason=reason)
            key_revoked.send(sender=ApiKey, key=key)
    return is_revoked


def rotate(
    actor: Actor, key: ApiKey, *, overlap: dt.timedelta | None = None, reason: str = ""
) -> tuple[ApiKey, str]:
    """A key in this one's place, and its text; this one ends after the overlap, never after its expiry.

    The new key has the old one's name, scopes, limits, networks and expiry: a rotation grants nothing.
    `overlap` defaults to KEY_ROTATION_OVERLAP_SECONDS. Raises ValidationError when the overlap is out of
    bounds, or when the key has ended or was rotated before.
    """
    overlap = dt.timedelta(seconds=settings.KEY_ROTATION_OVERLAP_SECONDS) if overlap is None else overlap
    if not dt.timedelta() <= overlap <= dt.timedelta(seconds=MAX_ROTATION_OVERLAP_SECONDS):
        raise ValidationError({"overlap_seconds": [f"It must be from 0 to {MAX_ROTATION_OVERLAP_SECONDS}."]})
    with key_cache.changing([key]), transaction.atomic():
        old = _locked(key)
        now = timezone.now()
        _refuse_rotation(old, now)
        new, text = ApiKey.issue(
            old.partner, environment=old.environment, **{name: getattr(old, name) for name in EDITABLE}
        )
        old.replaced_by, old.rotated_at = new, now
        old.expires_at = min(now + overlap, old.expires_at or dt.datetime.max.replace(tzinfo=dt.UTC))
        old.save(update_fields=["replaced_by", "rotated_at", "expires_at"])
        after = {"new_key": new.prefix, "old_key_ends": old.expires_at}
        audit.record(actor, "key.rotated", old, partner=old.partner, after=after, reason=reason)
        key_rotated.send(sender=ApiKey, key=old)
    key.refresh_from_db()
    return new, text


def create_partner(actor: Actor, *, reason: str = "", **fields: Any) -> Partner:
    """Raises ValidationError by field."""
    _refuse_other(fields, PARTNER_EDITABLE)
    partner = Partner(**fields)
    with transaction.atomic():
        audit.lock()
        partner.full_clean()
        partner.save(force_insert=True)
        audit.record(actor, "partner.created", partner, partner=partner, after=fields, reason=reason)
    return partner


def change_partner(actor: Actor, partner: Partner, *, reason: str = "", **fields: Any) -> bool:
    """Changes PARTNER_EDITABLE fields; a suspension holds for all of the partner's keys at once.

    False when nothing differs. Raises ValidationError by field.
    """
    _refuse_other(fields, PARTNER_EDITABLE)
    with key_cache.changing_partner(partner), transaction.atomic():
        audit.lock()
        kept = Partner.objects.select_for_update(no_key=True).get(pk=partner.pk)
        before, after = _apply(kept, fields)
        if after:
            kept.full_clean()
            kept.save(update_fields=list(fields))
            action = {"active": "partner.reactivated", "suspended": "partner.suspended"}.get(
                str(after.get("status", "")), "partner.changed"
            )
            audit.record(actor, action, kept, partner=kept, before=before, after=after, reason=reason)
    partner.refresh_from_db()
    return bool(after)


def _locked(key: ApiKey) -> ApiKey:
    """The key as it is now; until the transaction ends nobody else changes it."""
    audit.lock()
    keys = ApiKey.objects.select_for_update(of=("self",), no_key=True).select_related("partner")
    return keys.get(pk=key.pk)


def _apply(row: Any, fields: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sets the fields, and returns what differed: before and after."""
    differing = {name: value for name, value in fields.items() if getattr(row, name) != value}
    before = {name: getattr(row, name) for name in differing}
    for name, value in differing.items():
        setattr(row, name, value)
    return before, differing


def _refuse_other(fields: dict[str, Any], editable: tuple[str, ...]) -> None:
    other = sorted(set(fields) - set(editable))
    if other:
        message = f"these can't be set: {', '.join(other)}"
        raise TypeError(message)


def _refuse_rotation(key: ApiKey, now: dt.datetime) -> None:
    if key.replaced_by is not None:
        message = f"The key was rotated already; rotate {key.replaced_by.prefix}, which is in its place."
        raise ValidationError(message, code="already_rotated")
    if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
        raise ValidationError("The key has ended; issue another one.", code="key_ended")


def _facts(key: ApiKey) -> dict[str, Any]:
    return {"prefix": key.prefix, **{name: getattr(key, name) for name in EDITABLE}}
