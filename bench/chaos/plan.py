"""What a run does: its orders with the faults they ask the sandbox for, and when what is broken."""

import copy
import random
from dataclasses import dataclass, replace
from typing import Any, Final

from deeds.catalog import DEED_TYPES

# Victims of SIGKILL. A "… child" is one process of several, whose parent lives on.
VICTIMS: Final = ("web", "worker", "redis", "sandbox", "beat", "worker child", "web child")
NEVER_IN_TIME: Final = "timeout"
# What an order id asks of the sandbox, how many in a thousand, and how the deed must end.
FAULTS: Final = (
    ("503-2", 60, "completed"),
    ("503-5", 20, "completed"),
    ("429-1", 20, "completed"),
    ("slow-1", 20, "completed"),
    ("400", 40, "failed"),
    ("html", 20, "failed"),
    ("truncated", 20, "failed"),
    (NEVER_IN_TIME, 3, "failed"),
)
ORDINARY: Final = "none"
_FULL: Final = 500


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
        orders = [_order(number, self.seed, chance, is_late=number > late) for number in range(self.orders)]
        if self.orders >= _FULL:
            # Chance may leave out the rarest, of which a full run must have one.
            sure = self.orders // 6
            orders[sure] = _asking_for(orders[sure], NEVER_IN_TIME, "failed")
        return orders

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
        if drawn < share and not (is_late and name == NEVER_IN_TIME):
            fault, ends = name, outcome
            break
        drawn -= share
    deed_type = chance.choice(list(DEED_TYPES.values()))
    body = copy.deepcopy(deed_type.example)
    body["grantees"] = [{"name": f"BUYER {number}"}]
    key = f"chaos-{seed}-{number}" if chance.random() < 0.5 else None
    return _asking_for(Order(number, "", "", body, key), fault, ends)


def _asking_for(order: Order, fault: str, ends: str) -> Order:
    """The order, with the id by which the sandbox knows what to do."""
    name = f"CHAOS-{order.number}" if fault == ORDINARY else f"sandbox-{fault}-C{order.number}"
    return replace(order, fault=fault, ends=ends, body=order.body | {"order_id": name})
