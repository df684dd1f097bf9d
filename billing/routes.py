"""Routes of the API as documents write them, `/v2/deeds/{deed_id}`: in the request log and in cost units."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from django.urls import URLPattern, get_resolver

_CONVERTED: Final = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")


def documented(pattern: str) -> str:
    """Of a pattern of the URL conf."""
    return "/" + _CONVERTED.sub(r"{\1}", pattern)


@cache
def requests() -> frozenset[str]:
    """Every method and route of the API, such as "GET /v2/deeds/{deed_id}"."""
    return frozenset(_requests(get_resolver().url_patterns))


def _requests(patterns: list[Any]) -> Iterator[str]:
    """The API's routes stand at the top of the URL conf; what is included there are pages."""
    for one in patterns:
        view = getattr(one.callback, "view_class", None) if isinstance(one, URLPattern) else None
        # A view of the API names a scope for each of its methods (keys.permissions).
        for method in getattr(view, "scopes", {}):
            yield f"{method} {documented(str(one.pattern))}"
