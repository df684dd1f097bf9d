"""Rows of the request log cost what their partner's contract says, where it has cost units of its own.

That is looked up while rows are stored, many at a time, so that no request waits for it. What is stored
keeps what it cost: a contract that is agreed later changes no row.
"""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any

from billing.cost_units import cost_of
from billing.models import Contract
from billing.models.contract import in_force_of


def apply(lines: Sequence[bytes], names: Sequence[str]) -> list[bytes]:
    """The lines of a spool, with `cost_units` replaced in those of such partners. One query.

    `names` are those of a line's members. What is no row is returned as it is, for others to judge.
    """
    versions = _versions()
    return [_priced(line, names, versions) for line in lines] if versions else list(lines)


def _priced(line: bytes, names: Sequence[str], versions: Mapping[str, list[Contract]]) -> bytes:
    try:
        row = dict(zip(names, json.loads(line), strict=True))
        mine = versions.get(row["partner_id"])
        contract = mine and in_force_of(mine, dt.datetime.fromtimestamp(row["at"], dt.UTC).date())
        if not contract or not contract.cost_units:
            return line
        cost = cost_of(row["method"], row["route"], row["status"], _by_type(row), contract.cost_units)
        row["cost_units"] = cost
        return json.dumps(list(row.values()), separators=(",", ":")).encode()
    except (ValueError, TypeError, OverflowError, OSError, RecursionError):
        return line


def _by_type(row: Mapping[str, Any]) -> dict[str, int]:
    """The row's new deeds by type."""
    given = row["deed_type"]
    if isinstance(given, dict):
        return {name: int(count) for name, count in given.items()}
    return {str(given): int(row["deeds"])} if row["deeds"] else {}


def _versions() -> dict[str, list[Contract]]:
    """By partner; only of those partners that have a table."""
    standing = Contract.objects.standing()
    with_a_table = standing.exclude(cost_units={}).values("partner")
    found: dict[str, list[Contract]] = {}
    some = standing.filter(partner__in=with_a_table)
    for contract in some.only("partner_id", "starts_on", "ends_on", "cost_units"):
        found.setdefault(str(contract.partner_id), []).append(contract)
    return found
