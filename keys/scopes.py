"""What a key may be allowed to do. A wildcard covers a resource (`deed:*`) or everything (`*`)."""

import difflib
from collections.abc import Iterable
from typing import Final

SCOPES: Final = (
    "deed:create",
    "deed:read",
    "deed:cancel",
    "usage:read",
    "billing:read",
    "webhook:manage",
    "key:manage",
)
WILDCARDS: Final = (*sorted({f"{scope.split(':')[0]}:*" for scope in SCOPES}), "*")
GRANTABLE: Final = (*SCOPES, *WILDCARDS)


def covers(granted: Iterable[str], needed: str) -> bool:
    """Whether one of the granted scopes allows `needed` (a scope without wildcard)."""
    resource = needed.split(":", maxsplit=1)[0]
    return not {needed, f"{resource}:*", "*"}.isdisjoint(granted)


def lacking(granted: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Those of the wanted scopes, wildcards included, that the granted ones don't cover."""
    held = set(granted)
    return [
        scope
        for scope in wanted
        if "*" not in held and scope not in held and f"{scope.split(':', maxsplit=1)[0]}:*" not in held
    ]


def why_not_grantable(scope: str) -> str | None:
    """None for a scope that exists, else a sentence that suggests the nearest."""
    if scope in GRANTABLE:
        return None
    near = difflib.get_close_matches(scope, GRANTABLE, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(GRANTABLE)}."
    return f"There is no scope {scope!r}; {hint}"
