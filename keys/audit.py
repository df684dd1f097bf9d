"""Writes the audit trail: one entry in the transaction of what it tells of, or neither.

Entries form a hash chain. They are written one after the other (a lock that the transaction holds),
which such acts can afford: staff, partners' administrators and commands do them, not orders.
The chain's head is signed with SECRET_KEY, which the database does not know. It is there from the
migrations on; one that is missing or not ours is never signed again, so that no later entry covers up
what was done to the chain.
"""

import hashlib
import hmac
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from django.conf import settings
from django.db import connection, models, transaction
from django.http import HttpRequest
from django.utils import timezone

from keys.models import ApiKey, AuditEntry, AuditHead, Partner
from partner_api.http import request_id
from partner_api.http.client_address import address_of
from partner_api.ops.redaction import redact

log = structlog.get_logger(__name__)

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
    target: models.Model | None,
    *,
    partner: Partner | None = None,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    reason: str = "",
) -> AuditEntry:
    """One more entry. Call it inside the transaction of the act; `before` and `after` hold no secret.

    `action` is `<noun>.<verb>`, such as `key.revoked`. Without a target the act was on nothing that
    exists, such as a login under an unknown name.
    """
    with transaction.atomic():
        lock()
        # The head, not the last row: after a removal the next entry must not mend the chain.
        head = AuditHead.objects.first() or AuditHead(count=0, last_id=0, hash=GENESIS)
        is_ours = is_signed(head)
        if not is_ours:
            log.error("audit_head_not_ours", count=head.count, last_id=head.last_id)
        entry = AuditEntry(
            at=timezone.now(),
            actor_kind=actor.kind,
            actor=actor.name[:200],
            action=action,
            target_kind=target._meta.label_lower if target else "",  # noqa: SLF001 - a documented name
            target_id=str(target.pk) if target else "",
            partner=partner,
            before=_plain(before),
            after=_plain(after),
            # What is written here stays, and many may read it: whoever reports a leak pastes the key.
            reason=redact(reason)[:500],
            address=actor.address,
            request_id=actor.request_id,
            previous_hash=head.hash,
        )
        entry.hash = hash_of(entry)
        entry.save(force_insert=True)
        head.count, head.last_id, head.hash = head.count + 1, entry.pk, entry.hash
        head.signature = signature_of(head) if is_ours else ""
        head.save()
    return entry


def last(actions: Sequence[str], target: models.Model) -> int | None:
    """The id of the latest entry that tells of one of these actions on the target."""
    of_target = AuditEntry.objects.filter(
        target_kind=target._meta.label_lower,  # noqa: SLF001 - a documented name
        target_id=str(target.pk),
        action__in=actions,
    )
    latest: int | None = of_target.order_by("-id").values_list("pk", flat=True).first() if actions else None
    return latest


def lock() -> None:
    """Until the transaction ends, nobody else adds an entry."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])


def signature_of(head: AuditHead, secret: str | None = None) -> str:
    """HMAC-SHA256 over all that the head says."""
    key = hashlib.sha256(f"audit head {secret or settings.SECRET_KEY}".encode()).digest()
    text = f"{head.count}:{head.last_id}:{head.hash}"
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def is_signed(head: AuditHead) -> bool:
    """Whether we wrote this head, with the current SECRET_KEY or one of its fallbacks."""
    secrets = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    return any(hmac.compare_digest(head.signature, signature_of(head, secret)) for secret in secrets)


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
        _address(entry.address),
        entry.request_id,
    ]
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _address(text: str | None) -> str:
    """As `address_of` gives it: Postgres has another form for some of IPv6 (::1.2.3.4)."""
    try:
        return str(ipaddress.ip_address(text or ""))
    except ValueError:
        return text or ""


def _plain(facts: dict[str, Any] | None) -> dict[str, Any]:
    """As JSON keeps it, so that the hash of what was read back is the hash of what was written."""
    plain: dict[str, Any] = _without_secrets(json.loads(json.dumps(facts or {}, default=str)))
    return plain


def _without_secrets(value: Any) -> Any:
    """None should be in it. A name or an address may hold one that somebody pasted."""
    if isinstance(value, dict):
        return {name: _without_secrets(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_secrets(one) for one in value]
    return redact(value) if isinstance(value, str) else value
