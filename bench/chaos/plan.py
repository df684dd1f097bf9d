"""What a run does: its orders with the faults they ask the sandbox for, and when what is broken."""

import copy
import random
from dataclasses import dataclass
from typing import Any, Final

from deeds.catalog import DEED_TYPES

# Victims of SIGKILL. A "… child" is one process of several, whose parent lives on.
VICTIMS: Final = ("web", "worker", "redis", "sandbox", "beat", "worker child", "web child")
# What an order id asks of the sandbox, how many in a thousand, and how the deed must end.
FAULTS: Final = (
    ("503-2", 60, "completed"),
    ("503-5", 20, "completed"),
    ("429-1", 20, "completed"),
    ("slow-1", 20, "completed"),
    ("400", 40, "failed"),
    ("html", 20, "failed"),
    ("truncated", 20, "failed"),
    ("timeout", 3, "failed"),
)
ORDINARY: Final = "none"


@dataclass(frozen=True)
class Order:
    """`fault` is one of FAULTS or ORDINARY, `ends` the status that the deed must reach."""

    number: int
    fault: str
    ends: str
    body: dict[str, Any]
    idempotency_key: str | None


@dataclass(frozen=True)
class Blow:
    """One thing that is broken, `pause` seconds after the one before, and mended after `lasts`."""

    what: str
    pause: float
    lasts: float


@dataclass(frozen=True)
class Plan:
    """`away` orders are placed before there is a renderer at all. Times are in seconds.

    `limit` bounds sending and settling together; `retries` is the product's schedule of later attempts.
    """

    seed: int
    orders: int = 1000
    kills: int = 30
    clients: int = 12
    away: int = 30
    interval: float = 2.4
    limit: float = 212.0
    retries: str = "1,1,1,2,2,2,3,3"

    def make_orders(self) -> list[Order]:
        chance = random.Random(f"orders {self.seed}")
        # An order that is never answered in time takes all its attempts' time, which must be left.
        late = self.orders // 3
        return [_order(number, self.seed, chance, is_late=number > late) for number in range(self.orders)]

    def make_blows(self) -> list[Blow]:
        """Every victim in turn, in random order; among them times in which the storage refuses."""
        chance = random.Random(f"blows {self.seed}")
        victims: list[str] = []
        while len(victims) < self.kills:
            victims += chance.sample(VICTIMS, len(VICTIMS))
        whats = victims[: self.kills]
        for _ in range(max(1, self.kills // 6)):
            whats.insert(chance.randrange(len(whats) + 1), "storage")
        return [
            Blow(what, self.interval * chance.uniform(0.6, 1.4), chance.uniform(0.2, 1.6)) for what in whats
        ]


def _order(number: int, seed: int, chance: random.Random, *, is_late: bool) -> Order:
    drawn, fault, ends = chance.randrange(1000), ORDINARY, "completed"
    for name, share, outcome in FAULTS:
        if drawn < share and not (is_late and name == "timeout"):
            fault, ends = name, outcome
            break
        drawn -= share
    deed_type = chance.choice(list(DEED_TYPES.values()))
    body = copy.deepcopy(deed_type.example)
    body["order_id"] = f"CHAOS-{number}" if fault == ORDINARY else f"sandbox-{fault}-C{number}"
    body["grantees"] = [{"name": f"BUYER {number}"}]
    key = f"chaos-{seed}-{number}" if chance.random() < 0.5 else None
    return Order(number, fault, ends, body, key)
