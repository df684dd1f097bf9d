"""How long a renderer asks to be left alone. It is believed up to an hour: what is longer is a mistake, or
would keep every deed from being made for as long as it says.
"""

import math
from email.utils import parsedate_to_datetime
from typing import Final

from django.utils import timezone

_LONGEST_SECONDS: Final = 3600.0
_UNREADABLE_SECONDS: Final = 1.0


def seconds(value: str | None) -> float:
    """From a Retry-After header (RFC 9110 section 10.2.3); one when it is absent or says nothing usable."""
    asked = _asked(value or "")
    return min(asked, _LONGEST_SECONDS) if math.isfinite(asked) and asked >= 0 else _UNREADABLE_SECONDS


def _asked(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - timezone.now()).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return math.nan
