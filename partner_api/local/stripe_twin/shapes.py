"""What every call has in common: parameters that it needs, and how lists are answered."""

from typing import Any

from partner_api.local.stripe_twin.world import Refusal, Thing

Params = dict[str, Any]


def needed(params: Params, name: str) -> str:
    value = params.get(name)
    if value in {None, ""}:
        raise Refusal(400, f"Missing required param: {name}.", code="parameter_missing", param=name)
    return str(value)


def page_of(things: list[Thing], params: Params, url: str) -> Thing:
    """Up to `limit` (10) things after `starting_after`, in the order they were made."""
    limit, after = int(params.get("limit", 10)), params.get("starting_after")
    start = next((at + 1 for at, thing in enumerate(things) if thing["id"] == after), 0)
    page = things[start : start + limit]
    return {**listed(page, url), "has_more": len(things) > start + limit}


def listed(things: list[Thing], url: str) -> Thing:
    return {"object": "list", "data": things, "has_more": False, "url": url}
