"""Rows of the request log, made without requests; and what the metrics say of them."""

import datetime as dt
import json
import uuid
from typing import Any

from prometheus_client import REGISTRY

from billing import ingest
from billing.models import Level, UsageDaily
from keys.models import ApiKey, Partner

Row = list[Any]


def a_row(*, partner: Partner | None = None, key: ApiKey | None = None, **changes: Any) -> Row:
    """A line of the spool, as a list in the order of its fields."""
    values: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "at": dt.datetime.now(dt.UTC),
        "partner_id": partner and str(partner.pk),
        "key_id": key and str(key.pk),
        "livemode": key and key.livemode,
        "method": "GET",
        "route": "/v2/deeds",
        "status": 200,
        "error_code": "",
        "latency_ms": 12.5,
        "cost_units": 1,
        "deeds": 0,
        "deed_type": "",
        "deed_id": None,
        "bytes_in": 0,
        "bytes_out": 10,
        "address": "127.0.0.1",
        "request_id": "req_1",
    }
    assert changes.keys() <= values.keys()
    values |= changes
    if isinstance(values["at"], dt.datetime):
        values["at"] = values["at"].timestamp()
    return list(values.values())


def line(values: Row) -> bytes:
    return json.dumps(values).encode()


def requests(number: int, **what: Any) -> list[Row]:
    return [a_row(**what) for _ in range(number)]


def log(*parts: list[Row]) -> int:
    """Stores them as the drainer does; how many were new."""
    return ingest.store([line(values) for part in parts for values in part])


def used(partner: Partner, day: dt.date, number: int) -> None:
    """What the rollup of a day says once so many requests of the partner are stored."""
    nothing = ("errors", "rate_limited", "deeds", "cost_units", "bytes_in", "bytes_out")
    UsageDaily.objects.create(
        level=Level.FULL,
        moment=dt.datetime.combine(day, dt.time(), dt.UTC),
        partner=partner,
        livemode=True,
        method="GET",
        route="/v2/deeds",
        status=200,
        deed_type="",
        requests=number,
        latency_buckets=[],
        latency_counts=[],
        **dict.fromkeys(nothing, 0),
    )


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0
