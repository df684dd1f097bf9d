"""What a request costs in units, before any contract makes money of it.

A request costs one, and each new deed that it orders some more. What we failed to do or refused to look
at (401, 429, 5xx) costs nothing. USAGE_COST_UNITS replaces figures for all, a contract's own table for
its partner (`billing.agreed_units`).
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from django.conf import settings

from billing import routes
from partner_api.http.suggestions import suggest

REQUEST: Final = 1
DEED: Final = 10
MOST: Final = 1_000_000

_deed_types: set[str] = set()
_FREE: Final = frozenset({401, 429})
_OUR_FAULT: Final = 500


def cost_of(
    method: str, route: str, status: int, deeds: Mapping[str, int], own: Mapping[str, int] | None = None
) -> int:
    """`deeds` are the new deeds by type, `own` the table of a contract, where it has one.

    A table's names are deed types ("grant"), and requests by method and route ("GET /v2/deeds").
    """
    if status in _FREE or status >= _OUR_FAULT:
        return 0
    table: Mapping[str, int] = settings.USAGE_COST_UNITS
    if own:
        table = {**table, **own}
    if not table and not deeds:
        return REQUEST
    of_request = table.get(f"{method} {route}", REQUEST)
    return of_request + sum(table.get(deed_type, DEED) * count for deed_type, count in deeds.items())


def know_deed_types(names: Iterable[str]) -> None:
    """Whoever makes deeds says at the start which types there are."""
    _deed_types.update(names)


def deed_types() -> set[str]:
    return set(_deed_types)


def problems_of(table: Any) -> list[str]:
    """What is wrong with a contract's table, or the setting, in sentences that name the entry."""
    if not isinstance(table, dict):
        return ['Write cost units as {"grant": 12, "POST /v2/deeds/batch": 5}.']
    found = []
    for name, units in table.items():
        if isinstance(units, bool) or not isinstance(units, int) or not 0 <= units <= MOST:
            found.append(f"The units of {name[:60]!r} must be a whole number from 0 to {MOST:,}.")
        known = routes.requests() if " " in name or "/" in name else _deed_types
        if name not in known:
            what = "request" if known is not _deed_types else "deed type"
            found.append(f"There is no {what} {name[:60]!r}; {suggest(name, sorted(known))}")
    return found
