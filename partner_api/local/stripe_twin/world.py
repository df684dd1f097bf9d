"""What a twin knows: its objects, its clock, the rules that were broken, and the faults it was told to make.

One lock guards everything; what must take time (a slow answer, the work on a meter event) waits
outside of it.
"""

import itertools
import secrets
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

Thing = dict[str, Any]
_PREFIXES: Final = {
    "customer": "cus",
    "product": "prod",
    "price": "price",
    "billing.meter": "mtr",
    "subscription": "sub",
    "subscription_item": "si",
    "invoice": "in",
    "line_item": "il",
    "invoiceitem": "ii",
    "payment_method": "pm",
    "setup_intent": "seti",
    "billing_portal.session": "bps",
    "event": "evt",
    "request": "req",
}


class Refusal(Exception):
    """An error answer, in the form of Stripe's error object."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        error = {"type": kind, "message": message, "code": code, "param": param}
        self.body: Thing = {"error": {name: value for name, value in error.items() if value is not None}}


@dataclass
class Fault:
    """What shall go wrong with the next `times` requests whose path contains `path`.

    `kind`: `outage` closes the connection, `500` refuses before anything is done, `500_after` does it and
    says 500 (both are kept under the idempotency key), `lost` does it and closes the connection, `slow`
    waits `seconds` before and `late` after it is done, so that answers to others overtake it. `429` is a
    rate limit.
    """

    kind: str
    path: str = ""
    times: int = 1
    seconds: float = 0.0
    chance: float = 1.0
    method: str = ""


@dataclass
class World:
    """`secret_key` decides the mode; `lag_seconds` is how long aggregation trails behind (real time)."""

    secret_key: str = "sk_test_twin"
    lag_seconds: float = 0.0
    work_seconds: float = 0.0
    per_second: int = 1000
    per_second_other: int = 100
    objects: dict[str, Thing] = field(default_factory=dict)
    events: deque[Thing] = field(default_factory=deque)
    faults: list[Fault] = field(default_factory=list)
    violations: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    lock: threading.RLock = field(default_factory=threading.RLock)
    clock: Callable[[], float] | None = None
    offset_seconds: float = 0.0

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self._kinds: dict[str, dict[str, Thing]] = defaultdict(dict)
        self._salt = secrets.token_hex(4)

    @property
    def livemode(self) -> bool:
        return self.secret_key.startswith("sk_live_")

    def now(self) -> int:
        """Unix seconds of the twin's clock, which may be moved."""
        return int((self.clock or time.time)() + self.offset_seconds)

    def new(self, kind: str, **fields: Any) -> Thing:
        """A stored object with what every Stripe object has; a client may have chosen its `id`."""
        thing = {
            "id": f"{_PREFIXES[kind]}_{self._salt}{next(self._numbers):08d}",
            "object": kind,
            "livemode": self.livemode,
            "created": self.now(),
            **fields,
        }
        self.put(thing)
        return thing

    def remove(self, thing: Thing) -> None:
        """As if it had never been."""
        del self.objects[thing["id"]], self._kinds[thing["object"]][thing["id"]]

    def put(self, thing: Thing) -> None:
        self.objects[thing["id"]] = self._kinds[thing["object"]][thing["id"]] = thing

    def all(self, kind: str) -> list[Thing]:
        return list(self._kinds[kind].values())

    def get(self, kind: str, wanted: str, *, param: str = "id") -> Thing:
        """Raises Refusal (404, or 400 where a parameter names it)."""
        thing = self.objects.get(wanted)
        if thing is None or thing["object"] != kind or thing.get("deleted"):
            status = 404 if param == "id" else 400
            message = f"No such {kind}: '{wanted}'"
            raise Refusal(status, message, code="resource_missing", param=param)
        return thing

    def announce(self, kind: str, thing: Thing, *, before: Thing | None = None) -> None:
        """One more event, with the object as it is at this moment; `before` is what was otherwise."""
        snapshot = {key: value for key, value in thing.items() if not key.startswith("_")}
        data = {"object": snapshot, **({"previous_attributes": before} if before else {})}
        event = self.new("event", type=kind, data=data, api_version="2026-10-28.endive", pending_webhooks=1)
        self.events.append(event)

    def violate(self, rule: str) -> None:
        """Counts a broken rule of Stripe's; a client that behaves has none."""
        with self.lock:
            self.violations[rule] += 1
