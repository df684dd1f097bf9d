"""Webhooks as Stripe sends them: signed, at least once, in any order, and again when nobody answered."""

import hashlib
import hmac
import json
import random
import time
from dataclasses import dataclass
from typing import Final

import requests

from partner_api.local.stripe_twin.world import Thing, World

_ANSWERED: Final = 300


@dataclass(frozen=True)
class Delivery:
    body: bytes
    signature: str
    event: Thing


class Deliveries:
    """`duplicates` is how likely an event is sent twice; the order is that of `seed`."""

    def __init__(self, world: World, secret: str, *, duplicates: float = 0.3, seed: int = 6) -> None:
        self.world = world
        self.secret = secret
        self.duplicates = duplicates
        self.unanswered: list[Thing] = []
        self._random = random.Random(seed)  # noqa: S311 - an order, not a secret

    def take(self) -> list[Delivery]:
        """All that waits, shuffled, some of it twice. The signature's time is the real one."""
        with self.world.lock:
            events = [*self.world.events, *self.unanswered]
            self.world.events.clear()
            self.unanswered.clear()
        events += [event for event in events if self._random.random() < self.duplicates]
        self._random.shuffle(events)
        return [self.sign(event) for event in events]

    def sign(self, event: Thing, *, at: float | None = None, secret: str | None = None) -> Delivery:
        body = json.dumps(event).encode()
        moment = int(at if at is not None else time.time())
        text = f"{moment}.".encode() + body
        digest = hmac.new((secret or self.secret).encode(), text, hashlib.sha256).hexdigest()
        return Delivery(body, f"t={moment},v1={digest}", event)

    def send(self, url: str) -> int:
        """Posts all that waits; what isn't answered with 2xx waits again. Returns how many were taken."""
        taken = 0
        for delivery in self.take():
            headers = {"Stripe-Signature": delivery.signature, "Content-Type": "application/json"}
            try:
                answer = requests.post(url, data=delivery.body, headers=headers, timeout=10)
                is_taken = answer.status_code < _ANSWERED
            except requests.RequestException:
                is_taken = False
            taken += is_taken
            if not is_taken:
                self.unanswered.append(delivery.event)
        return taken
