"""Partners, keys and orders to measure with."""

import copy
from typing import Any

from deeds import batches, ordering, reading
from deeds.catalog import DEED_TYPES
from deeds.models import Deed
from keys.models import ApiKey, Partner
from keys.scopes import SCOPES

FAST: dict[str, Any] = {"rate_limit_per_minute": 1_000_000, "rate_limit_burst": 1_000_000}


def partner_with_key(name: str, *, environment: str = "live") -> tuple[Partner, str]:
    """A partner, and the text of a key with all scopes and no limit to speak of."""
    partner = Partner.objects.create(name=name)
    _, text = ApiKey.issue(partner, name="bench", environment=environment, scopes=list(SCOPES), **FAST)
    return partner, text


def order(number: int, *, kind: str = "grant", prefix: str = "BENCH") -> dict[str, Any]:
    return copy.deepcopy(DEED_TYPES[kind].example) | {"order_id": f"{prefix}-{number}"}


def place(partner: Partner, count: int) -> list[Deed]:
    """Orders placed by the use case itself, without HTTP."""
    key = partner.api_keys.get()
    origin = ordering.Origin(partner, key, Deed.Source.V2, "bench")
    return [ordering.place_read(origin, reading.read(order(number))).deed for number in range(count)]


def queue(partner: Partner, count: int) -> None:
    """Orders of all types through the door for batches, as many at a time as one may have."""
    key = partner.api_keys.get()
    origin = ordering.Origin(partner, key, Deed.Source.BATCH, "bench")
    kinds = list(DEED_TYPES)
    orders = [order(number, kind=kinds[number % len(kinds)]) for number in range(count)]
    for start in range(0, count, 500):
        batches.place_all(origin, orders[start : start + 500])
