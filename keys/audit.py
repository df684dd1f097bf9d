"""Writes the audit trail: one entry in the transaction of what it tells of, or neither.

Entries form a hash chain. They are written one after the other (a lock that the transaction holds),
which such acts can afford: staff, partners' administrators and commands do them, not orders.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

from django.db import connection, models, transaction
from django.http import HttpRequest
from django.utils import timezone

from keys.models import ApiKey, AuditEntry, Partner
from partner_api.http import request_id
from partner_api.http.client_address import address_of

_LOCK: Final = 0x617564697400  # "audit"
GENESIS: Final = "0" * 64


@dataclass(frozen=True)
class Actor:
    """Who acts. `name` is a user name, a key's prefix, a token's subject or a command's name."""

    kind: str
    name: str
    address: str | None = None
    request_id: str = ""

    @classmethod
    def staff(cls, request: HttpRequest) -> "Actor":
        return cls("staff", request.user.get_username(), address_of(request), request_id.of(request))

    @classmethod
    def key(cls, request: Any, key: ApiKey) -> "Actor":
        return cls("key", key.prefix, address_of(request), request_id.of(request))

    @classmethod
    def token(cls, request: Any, subject: str) -> "Actor":
        return cls("token", subject, address_of(request), request_id.of(request))

    @classmethod
    def command(cls, name: str) -> "Actor":
        return cls("command", name)

    @classmethod
    def system(cls, name: str) -> "Actor":
        return cls("system", name)


def record(
    actor: Actor,
    action: str,
    target: models.Model,
    *,
    partner: Partner | None = None,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    reason: str = "",
) -> AuditEntry:
    """One more entry. Call it inside the transaction of the act; `before` and `after` hold no secret.

    `action` is `<noun>.<verb>`, such as `key.revoked`.
    """
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        last = AuditEntry.objects.order_by("-id").values_list("hash", flat=True).first()
        entry = AuditEntry(
            at=timezone.now(),
            actor_kind=actor.kind,
            actor=actor.name[:200],
            action=action,
            target_kind=target._meta.label_lower,  # noqa: SLF001 - Django's documented name
            target_id=str(target.pk),
            partner=partner,
            before=_plain(before),
            after=_plain(after),
            reason=reason[:500],
            address=actor.address,
            request_id=actor.request_id,
            previous_hash=last or GENESIS,
        )
        entry.hash = hash_of(entry)
        entry.save(force_insert=True)
    return entry


def hash_of(entry: AuditEntry) -> str:
    """SHA-256 over the previous hash and everything that the entry says."""
    facts = [
        entry.previous_hash,
        entry.at.isoformat(timespec="microseconds"),
        entry.actor_kind,
        entry.actor,
        entry.action,
        entry.target_kind,
        entry.target_id,
        str(entry.partner_id or ""),
        entry.before,
        entry.after,
        entry.reason,
        entry.address or "",
        entry.request_id,
    ]
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(facts: dict[str, Any] | None) -> dict[str, Any]:
    """As JSON keeps it, so that the hash of what was read back is the hash of what was written."""
    plain: dict[str, Any] = json.loads(json.dumps(facts or {}, default=str))
    return plain
