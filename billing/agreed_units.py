"""Rows of the request log cost what their partner's contract says, where it has cost units of its own.

That is looked up while rows are stored, many at a time, so that no request waits for it. What is stored
keeps what it cost: a contract that is agreed later changes no row.
"""

import datetime as dt
import uuid
from typing import Any, Final

from billing.cost_units import cost_of
from billing.models import Contract

MOST: Final = 2**31 - 1
# Where a row keeps its new deeds by type, beside the columns.
BY_TYPE: Final = "deeds_by_type"


def apply(rows: list[dict[str, Any]]) -> None:
    """Replaces `cost_units` in the rows of those partners, and takes BY_TYPE out of all. One query."""
    versions = _versions({row["partner_id"] for row in rows if row["partner_id"] is not None})
    for row in rows:
        deeds, mine = row.pop(BY_TYPE), versions.get(row["partner_id"])
        if mine and (own := _in_force(mine, dt.datetime.fromisoformat(row["at"]).date())):
            cost = cost_of(row["method"], row["route"], row["status"], deeds, own)
            row["cost_units"] = min(cost, MOST)


def _versions(partners: set[str]) -> dict[str, list[Contract]]:
    """By partner, in the order in which they start; only of those partners that have a table."""
    if not partners:
        return {}
    ids = [uuid.UUID(partner) for partner in partners]
    standing = Contract.objects.standing().filter(partner__in=ids).order_by("starts_on")
    found: dict[str, list[Contract]] = {}
    for contract in standing.only("partner_id", "starts_on", "ends_on", "cost_units"):
        found.setdefault(str(contract.partner_id), []).append(contract)
    return {partner: some for partner, some in found.items() if any(one.cost_units for one in some)}


def _in_force(versions: list[Contract], day: dt.date) -> dict[str, int]:
    """The table of a day (UTC): the version's that started last, unless that has ended."""
    started = [contract for contract in versions if contract.starts_on <= day]
    return started[-1].cost_units if started and started[-1].covers(day) else {}
