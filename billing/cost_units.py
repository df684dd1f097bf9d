"""What a request costs in units: the one table, before any contract makes money of it.

A request costs one, and each new deed that it orders some more. What we failed to do or refused to look
at (401, 429, 5xx) costs nothing.
"""

from collections.abc import Mapping
from typing import Final

from django.conf import settings

REQUEST: Final = 1
DEED: Final = 10

_FREE: Final = frozenset({401, 429})
_OUR_FAULT: Final = 500


def cost_of(method: str, route: str, status: int, deeds: Mapping[str, int]) -> int:
    """`deeds` are the new deeds by type. USAGE_COST_UNITS replaces figures of the table.

    Its names are deed types ("grant"), and requests by method and route ("GET /v2/deeds").
    """
    if status in _FREE or status >= _OUR_FAULT:
        return 0
    table: Mapping[str, int] = settings.USAGE_COST_UNITS
    if not table and not deeds:
        return REQUEST
    of_request = table.get(f"{method} {route}", REQUEST)
    return of_request + sum(table.get(deed_type, DEED) * count for deed_type, count in deeds.items())
