"""A key was found where it should not be: it is revoked at once, and what it did is put together.

What it read and ordered is in the request log and in the deeds; what it left behind, such as keys and
webhook endpoints of whoever held it, is in the audit trail.
"""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Final

from django.db import connection, transaction
from django.db.models import Count, Max, Min, QuerySet

from billing.models import ApiUsage
from deeds.models import Deed
from keys import lifecycle
from keys.audit import Actor
from keys.models import ApiKey, AuditEntry
from keys.secret import PATTERN, KeyText
from partner_api.http.pagination import MAX_LIMIT

_CHUNK = 1024 * 1024
# Longer than any key, so that one that lies across two chunks is found in the second.
_OVERLAP = 128
_REFUSED = 400
# Its pages show deeds with the names of people; the log has the request, and not which deeds were on it.
_LIST: Final = ("GET", "/v2/deeds")


@dataclass(frozen=True)
class Tried:
    """Requests with the whole key, from one address, that were refused for one reason. The time is UTC."""

    address: str
    code: str
    requests: int
    last_at: dt.datetime


@dataclass
class Leak:
    """One key that was found, and what it did since the time asked for. Times are UTC."""

    key: ApiKey
    was_revoked_before: bool
    issued_by: ApiKey | None = None
    requests: int = 0
    first_at: dt.datetime | None = None
    last_at: dt.datetime | None = None
    routes: Counter[str] = field(default_factory=Counter)
    addresses: Counter[str] = field(default_factory=Counter)
    read: list[Deed] = field(default_factory=list)
    ordered: list[Deed] = field(default_factory=list)
    pages: int = 0
    # How many deeds those pages may have shown, at the most.
    listed: int = 0
    acts: list[AuditEntry] = field(default_factory=list)
    issued: list[ApiKey] = field(default_factory=list)
    # By whom was last there.
    tried: list[Tried] = field(default_factory=list)


def revoke_found(actor: Actor, texts: Iterable[str], *, reason: str) -> list[Leak]:
    """Revokes each key whose whole text, secret included, is among the texts; the others aren't ours."""
    leaks: dict[str, Leak] = {}
    for text in texts:
        parsed = KeyText.parse(text)
        if parsed is None or parsed.id in leaks:
            continue
        key = ApiKey.objects.select_related("partner").filter(key_id=parsed.id).first()
        if key is not None and key.matches(parsed):
            leaks[parsed.id] = Leak(key, not lifecycle.revoke(actor, key, reason=reason))
    return list(leaks.values())


def revoke_issued(actor: Actor, leaks: list[Leak], *, since: dt.datetime) -> list[Leak]:
    """Revokes the keys that were issued with those, and with these, and so on; those that are new here."""
    known = {leak.key.pk for leak in leaks}
    new: list[Leak] = []
    waiting = list(leaks)
    while waiting:
        issuer = waiting.pop(0).key
        for key in _issued_with(issuer, since=since):
            if key.pk in known:
                continue
            known.add(key.pk)
            reason = f"Issued with {issuer.prefix}, which leaked"
            found = Leak(key, not lifecycle.revoke(actor, key, reason=reason), issued_by=issuer)
            new.append(found)
            waiting.append(found)
    return new


def keys_in(source: IO[str]) -> Iterator[str]:
    """Whatever has the form of a key in a text of any length."""
    rest = ""
    while chunk := source.read(_CHUNK):
        text = rest + chunk
        yield from (match[0] for match in PATTERN.finditer(text))
        rest = text[-_OVERLAP:]


def look_back(leak: Leak, *, since: dt.datetime) -> None:
    """Fills in what the key did since then."""
    with transaction.atomic(), connection.cursor() as cursor:
        # A partner's log of months is long, and nobody waits for this in a request.
        cursor.execute("SET LOCAL statement_timeout = 0")
        _look_at_log(leak, since=since)
        leak.ordered = list(_told_apart(leak.key).filter(api_key=leak.key, created_at__gte=since))
        leak.acts = list(_acts_of(leak.key, since=since))
        leak.issued = _issued_with(leak.key, since=since)
        leak.tried = [
            Tried(row["address"] or "(unknown)", row["error_code"], row["n"], row["last"])
            for row in refusals_counted(leak.key, since=since)
        ]


def _look_at_log(leak: Leak, *, since: dt.datetime) -> None:
    listed_at = None
    for row in answers_counted(leak.key, since=since):
        leak.routes[f"{row['method']} {row['route'] or '(no route)'} {row['status']}"] += row["n"]
        leak.addresses[row["address"] or "(unknown)"] += row["n"]
        leak.requests += row["n"]
        leak.first_at = min(leak.first_at or row["first"], row["first"])
        leak.last_at = max(leak.last_at or row["last"], row["last"])
        if (row["method"], row["route"]) == _LIST and row["status"] < _REFUSED:
            leak.pages += row["n"]
            listed_at = max(listed_at or row["last"], row["last"])
    deeds = _told_apart(leak.key)
    leak.read = list(deeds.filter(pk__in=deeds_named(leak.key, since=since)))
    if listed_at is not None:
        leak.listed = min(leak.pages * MAX_LIMIT, deeds.filter(created_at__lte=listed_at).count())


def answers_counted(key: ApiKey, *, since: dt.datetime) -> QuerySet[ApiUsage, Any]:
    """The key's requests by route, status and address, in one look at the log: months of it may be long."""
    by = _rows_of(key, since=since).values("method", "route", "status", "address").order_by()
    return by.annotate(n=Count("id"), first=Min("at"), last=Max("at"))


def refusals_counted(key: ApiKey, *, since: dt.datetime) -> QuerySet[ApiUsage, Any]:
    """Requests with the key that were refused, by address and code: they are nobody's, and so without a
    partner."""
    rows = ApiUsage.objects.filter(partner=None, key=key.pk, at__gte=since)
    by = rows.values("address", "error_code").order_by()
    return by.annotate(n=Count("id"), last=Max("at")).order_by("-last")


def deeds_named(key: ApiKey, *, since: dt.datetime) -> QuerySet[ApiUsage, Any]:
    """Ids of the deeds that were read or changed by their address."""
    rows = _rows_of(key, since=since).exclude(deed_id=None).filter(status__lt=_REFUSED)
    return rows.values("deed_id").distinct().order_by()


def _told_apart(key: ApiKey) -> QuerySet[Deed]:
    """The deeds that the key can reach: what names each, without the order and its names and addresses."""
    deeds = key.partner.deeds.filter(livemode=key.livemode)
    return deeds.only("order_id", "deed_type", "status").order_by("pk")


def _rows_of(key: ApiKey, *, since: dt.datetime) -> QuerySet[ApiUsage]:
    """By the partner too, because the log's index is by partner and time."""
    return ApiUsage.objects.filter(partner=key.partner_id, key=key.pk, at__gte=since)


def _acts_of(key: ApiKey, *, since: dt.datetime) -> QuerySet[AuditEntry]:
    entries = AuditEntry.objects.filter(partner=key.partner_id, at__gte=since)
    return entries.filter(actor_kind=AuditEntry.ActorKind.KEY, actor=key.prefix).order_by("pk")


def _issued_with(key: ApiKey, *, since: dt.datetime) -> list[ApiKey]:
    """Keys whose text was shown to whoever held this one: new ones, and those in place of rotated ones."""
    acts = list(_acts_of(key, since=since).filter(action__in=["key.issued", "key.rotated"]))
    new = [act.target_id for act in acts if act.action == "key.issued"]
    rotated = [act.target_id for act in acts if act.action == "key.rotated"]
    own = ApiKey.objects.select_related("partner").filter(partner=key.partner_id)
    return list((own.filter(pk__in=new) | own.filter(replaces__pk__in=rotated)).order_by("pk"))
