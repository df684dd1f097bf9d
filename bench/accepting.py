"""What it costs to take an order, from a partner and from a source that signs, against one INSERT."""

import hashlib
import hmac
import itertools
import json
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial

from bench.harness import Bench, Figure, at_least, facts, in_turns, measure, ratio
from bench.load import http

ROUNDS = 4
SECONDS = 1
# More than a turn can send: each order and each event is sent once.
LINES = 2500
PARTNERS = 20
SECRET = "bench-secret"
# All load comes from one address, which a door that needs no key would soon close for.
OPEN = {"PUBLIC_RATE_LIMIT_PER_MINUTE": "10000000", "PUBLIC_RATE_LIMIT_BURST": "10000000"}
ACCEPTED = frozenset({"202"})


def run(bench: Bench) -> list[Figure]:
    url = bench.web(workers=None, env=OPEN)
    makers = _makers()

    def turn(make: Callable[[int], str], numbers: Iterator[int], seconds: float = SECONDS) -> float:
        lines = [make(next(numbers)) for _ in range(LINES)]
        return measure(url, lines, seconds=seconds, wanted=ACCEPTED).per_second

    numbers = itertools.count(1)
    for make in makers.values():
        turn(make, numbers, seconds=1)  # warm
    values = in_turns(
        {name: partial(turn, make, numbers) for name, make in makers.items()},
        rounds=ROUNDS,
    )
    best = {f"{name}_per_second": max(found) for name, found in values.items()}
    _forget_events()
    return [
        at_least("post_accept_ratio", ratio(values, "orders", "floor"), 0.5, facts(**best)),
        at_least("inbound_accept", ratio(values, "events", "floor"), 0.6, facts(**best)),
    ]


def _makers() -> dict[str, Callable[[int], str]]:
    """What each side sends, by number. The partners have a quota, so that all checks are made.

    There are several: orders of one wait for each other's commit, by the row that counts its quota.
    """
    from bench.orders import order, partner_with_key

    keys = []
    for number in range(PARTNERS):
        partner, key = partner_with_key(f"Bench orders {number}")
        partner.monthly_deed_quota = 10_000_000
        partner.save(update_fields=["monthly_deed_quota"])
        keys.append(key)
    _tie_source(partner.pk)

    def orders(number: int) -> str:
        headers = {
            "Authorization": f"Bearer {keys[number % PARTNERS]}",
            "Idempotency-Key": f'"{uuid.uuid4()}"',
        }
        return http("POST", "/v2/deeds", headers=headers, body=order(number))

    def events(number: int) -> str:
        body = order(number, prefix="EVENT")
        stamp = str(int(time.time()))
        # Signed as `http` writes it.
        signed = f"{stamp}.{json.dumps(body)}".encode()
        signature = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
        headers = {
            "X-SoftPro-Signature": signature,
            "X-Webhook-Timestamp": stamp,
            "X-Webhook-Id": str(uuid.uuid4()),
        }
        return http("POST", "/v1/webhooks/softpro", headers=headers, body=body)

    def floor(number: int) -> str:
        return http("POST", "/bench/insert", body=order(number))

    return {"orders": orders, "floor": floor, "events": events}


def _forget_events() -> None:
    """Thousands that no worker has made orders of yet: one would, while something else is measured."""
    from webhooks.models import InboundEvent

    InboundEvent.objects.all().delete()


def _tie_source(partner_id: uuid.UUID) -> None:
    from django.utils import timezone

    from webhooks.models import Source

    source = Source(system="softpro", partner_id=partner_id)
    source.give_secret(SECRET, now=timezone.now(), overlap=timedelta(0))
    source.save()
