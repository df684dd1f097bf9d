"""Meters, the events that are counted on them, and what Stripe has counted."""

import datetime as dt
import re
import time
from typing import Any, Final, Literal

from billing import pacing, stripe_facts
from billing.stripe_client import KeyReused, Refused, Unavailable
from billing.stripe_client.sdk import PAGE, all_of, faults, header, made, replayed, under, v1
from billing.stripe_facts import MeterEvent

# What a refused event is wrong about, by the words of Stripe's answer: most name no `param`.
_ABOUT: Final = (
    ("identifier", re.compile(r"identifier|duplicate|already.exists", re.IGNORECASE)),
    ("timestamp", re.compile(r"timestamp", re.IGNORECASE)),
    ("event_name", re.compile(r"no_meter|archived_meter|\bmeter\b(?! event)", re.IGNORECASE)),
)


def send(event: MeterEvent, *, idempotency_key: str) -> Literal["accepted", "duplicate"]:
    """Both answers mean that Stripe has it, once. A Refused names as its `param` what is wrong where Stripe's
    words say so: `timestamp`, or `event_name` for a meter that is missing. Raises StripeFault."""
    pacing.METER_EVENTS.wait()
    try:
        _send(event, idempotency_key)
    except (Unavailable, Refused) as fault:
        if not (fault.is_replayed or isinstance(fault, KeyReused)):
            raise
        # Stripe repeats a key's first answer, done or not. Under another key it must look; the event's
        # identifier still keeps it to one.
        try:
            pacing.METER_EVENTS.wait()
            _send(event, f"{idempotency_key}:{int(time.time())}")
        except _Duplicate:
            return "duplicate"
    except _Duplicate:
        return "duplicate"
    return "accepted"


def meters() -> dict[str, str]:
    """Event name → id of every active meter."""
    listed = all_of(lambda: v1().billing.meters.list({"limit": PAGE}))
    return {meter.event_name: meter.id for meter in listed if meter.status == "active"}


def create_meter(event_name: str, display_name: str, *, idempotency_key: str) -> str:
    """Look for it first (`meters`). Raises StripeFault."""
    params: Any = {
        "event_name": event_name,
        "display_name": display_name,
        "default_aggregation": {"formula": "sum"},
    }
    return str(made(v1().billing.meters.create, params, idempotency_key).id)


def total(meter: str, customer_id: str, start: dt.datetime, end: dt.datetime) -> int:
    """What aggregation has seen between two whole minutes; it trails behind the events."""
    params: Any = {
        "customer": customer_id,
        "start_time": int(start.timestamp()),
        "end_time": int(end.timestamp()),
        "limit": PAGE,
    }
    listed = all_of(lambda: v1().billing.meters.event_summaries.list(meter, params))
    return sum(int(summary.aggregated_value) for summary in listed)


def by_day(meter: str, customer_id: str, start: dt.datetime, end: dt.datetime) -> dict[dt.date, int]:
    """The same by day (UTC), between two midnights; days without events are missing."""
    params: Any = {
        "customer": customer_id,
        "start_time": int(start.timestamp()),
        "end_time": int(end.timestamp()),
        "value_grouping_window": "day",
        "limit": PAGE,
    }
    listed = all_of(lambda: v1().billing.meters.event_summaries.list(meter, params))
    days = {stripe_facts.moment_of(one.start_time).date(): int(one.aggregated_value) for one in listed}
    return {day: total for day, total in days.items() if total}


def _send(event: MeterEvent, idempotency_key: str) -> None:
    payload = {"stripe_customer_id": event.customer, "value": str(event.value), **dict(event.dimensions)}
    params: Any = {
        "event_name": event.event_name,
        "identifier": event.identifier,
        "timestamp": event.timestamp,
        "payload": payload,
    }
    try:
        with faults():
            answer = v1().billing.meter_events.create(params, under(idempotency_key))
    except Refused as refused:
        refused.param = refused.param or _about(refused, event)
        is_final = header(refused.__cause__, "stripe-should-retry") == "false"
        if is_final and refused.param == "identifier":
            raise _Duplicate from refused
        raise
    if replayed(answer.last_response):
        raise _Duplicate


def _about(refused: Refused, event: MeterEvent) -> str:
    if event.identifier in refused.message:
        return "identifier"
    said = f"{refused.code} {refused.message}"
    return next((name for name, words in _ABOUT if words.search(said)), "")


class _Duplicate(Exception):
    """A meter event that Stripe has already."""
