"""What staff may do with a source of orders, each with its entry in the audit trail."""

import datetime as dt
import secrets as random_secrets
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from keys import audit
from keys.audit import Actor
from webhooks.models import Source


def make(actor: Actor, source: Source) -> str:
    """Stores a new source, and gives its secret."""
    secret = random_secrets.token_hex(32)
    source.give_secret(secret, now=timezone.now(), overlap=dt.timedelta(0))
    with transaction.atomic():
        source.save(force_insert=True)
        _record(actor, "created", source, after=_facts(source))
    return secret


def change(actor: Actor, source: Source, *, strict: bool, reason: str) -> bool:
    """Whether requests without a timestamp are refused. False when nothing was to be done."""
    return _set(actor, "changed", source, reason, strict=strict)


def set_enabled(actor: Actor, source: Source, *, enabled: bool, reason: str) -> bool:
    """From the next request on. False when nothing was to be done."""
    return _set(actor, "enabled" if enabled else "disabled", source, reason, enabled=enabled)


def rotate(actor: Actor, source: Source, *, is_leaked: bool, reason: str) -> str:
    """A new secret. Those before are accepted too, as long as secrets overlap; not where one has leaked."""
    secret = random_secrets.token_hex(32)
    overlap = dt.timedelta(hours=0 if is_leaked else settings.WEBHOOKS_SECRET_OVERLAP_HOURS)
    with transaction.atomic():
        held = Source.objects.select_for_update(no_key=True).get(pk=source.pk)
        held.give_secret(secret, now=timezone.now(), overlap=overlap)
        held.save(update_fields=["secrets"])
        _record(actor, "secret_rotated", source, after={"earlier_end_at_once": is_leaked}, reason=reason)
    return secret


def _set(actor: Actor, verb: str, source: Source, reason: str, **field: bool) -> bool:
    [(name, value)] = field.items()
    with transaction.atomic():
        is_done = bool(Source.objects.filter(pk=source.pk, **{name: not value}).update(**field))
        if is_done:
            source.refresh_from_db(fields=["strict", "enabled"])
            _record(
                actor,
                verb,
                source,
                before=_facts(source) | {name: not value},
                after=_facts(source),
                reason=reason,
            )
    return is_done


def _record(actor: Actor, verb: str, source: Source, **facts: Any) -> None:
    audit.record(actor, f"webhook_source.{verb}", source, partner=source.partner, **facts)


def _facts(source: Source) -> dict[str, Any]:
    return {"system": source.system, "strict": source.strict, "enabled": source.enabled}
