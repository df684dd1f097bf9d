"""A key was found where it should not be: it is revoked at once, and what it did is put together."""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO

from django.db.models import Count, Max, Min

from billing.models import ApiUsage
from deeds.models import Deed
from keys import lifecycle
from keys.audit import Actor
from keys.models import ApiKey
from keys.secret import PATTERN, KeyText

_CHUNK = 1024 * 1024
# Longer than any key, so that one that lies across two chunks is found in the second.
_OVERLAP = 128
_MOST_DEEDS = 10_000


@dataclass
class Leak:
    """One key that was found, and what it did since the time asked for. Times are UTC."""

    key: ApiKey
    was_revoked_before: bool
    requests: int = 0
    first_at: dt.datetime | None = None
    last_at: dt.datetime | None = None
    routes: Counter[str] = field(default_factory=Counter)
    addresses: Counter[str] = field(default_factory=Counter)
    deeds: list[Deed] = field(default_factory=list)


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


def keys_in(source: IO[str]) -> Iterator[str]:
    """Whatever has the form of a key in a text of any length."""
    rest = ""
    while chunk := source.read(_CHUNK):
        text = rest + chunk
        yield from (match[0] for match in PATTERN.finditer(text))
        rest = text[-_OVERLAP:]


def look_back(leak: Leak, *, since: dt.datetime) -> None:
    """Fills in what the key did since then, from the request log."""
    rows = ApiUsage.objects.filter(partner=leak.key.partner_id, key=leak.key.pk, at__gte=since)
    for row in rows.values("method", "route", "status").annotate(n=Count("id")).order_by():
        leak.routes[f"{row['method']} {row['route'] or '(no route)'} {row['status']}"] += row["n"]
    for address, count in rows.values_list("address").annotate(n=Count("id")).order_by():
        leak.addresses[address or "(unknown)"] += count
    leak.requests = sum(leak.addresses.values())
    ends = rows.aggregate(first=Min("at"), last=Max("at"))
    leak.first_at, leak.last_at = ends["first"], ends["last"]
    seen = rows.exclude(deed_id=None).filter(status__lt=400).values("deed_id").distinct()
    leak.deeds = list(leak.key.partner.deeds.filter(pk__in=seen).order_by("pk")[:_MOST_DEEDS])
