"""Faults on demand: an order id that begins with `sandbox-` says what shall go wrong."""

import re
import threading
from collections import OrderedDict
from dataclasses import dataclass

_FORM = re.compile(
    r"sandbox-(?P<kind>503|429|slow|timeout|400|html|truncated)(?:-(?P<number>\d{1,4}))?(?:[-_.].*)?"
)
_DEFAULTS = {"503": 1, "429": 1, "slow": 5}
_REMEMBERED = 10_000


@dataclass(frozen=True)
class Fault:
    """`number` is how often (503, 429) or how long in seconds (slow)."""

    kind: str
    number: int


def fault_of(order_id: str) -> Fault | None:
    """What an order id asks for; None for an ordinary one."""
    match = _FORM.fullmatch(order_id)
    if match is None:
        return None
    number = int(match["number"]) if match["number"] else _DEFAULTS.get(match["kind"], 0)
    return Fault(match["kind"], number)


class Countdown:
    """How often each deed still has to fail. Remembers a bounded number of deeds, the latest."""

    def __init__(self) -> None:
        self._left: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._lock = threading.Lock()

    def is_due(self, key: tuple[str, str], times: int) -> bool:
        """True the first `times` times; then False once, and all begins again."""
        with self._lock:
            left = self._left.pop(key, times)
            if left <= 0:
                return False
            self._left[key] = left - 1
            if len(self._left) > _REMEMBERED:
                self._left.popitem(last=False)
            return True
