"""What a stored event would become today, without doing it: beside what did become of it."""

import difflib
import json
from dataclasses import dataclass, field
from typing import Any

from partner_api.http.problems import Problem
from webhooks import inbound
from webhooks.models import InboundEvent


@dataclass(frozen=True)
class Shadow:
    """`order` is None where today's mapping refuses; `difference` is a unified diff, empty for none."""

    order: dict[str, Any] | None
    problem: str = ""
    errors: list[dict[str, str]] = field(default_factory=list)
    difference: list[str] = field(default_factory=list)


def run(event: InboundEvent) -> Shadow:
    """Reads only. A deed's order as it was placed is compared with the order of today's mapping."""
    before = event.deed.order if event.deed else None
    try:
        order = inbound.reading_of(event).given
    except Problem as problem:
        errors = [error.as_dict() for error in problem.errors]
        return Shadow(None, problem.detail, errors, _difference(before, None))
    return Shadow(order, difference=_difference(before, order))


def _difference(before: dict[str, Any] | None, after: dict[str, Any] | None) -> list[str]:
    names = {"fromfile": "as it was placed", "tofile": "as it would be today"}
    return list(difflib.unified_diff(_lines(before), _lines(after), **names, lineterm="", n=2))


def _lines(order: dict[str, Any] | None) -> list[str]:
    text = json.dumps(order, indent=2, sort_keys=True, ensure_ascii=False) if order else ""
    return text.splitlines()
