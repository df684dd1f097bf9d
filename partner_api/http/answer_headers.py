"""Headers that many answers carry, written once in the OpenAPI document and referred to.

Those of the limit stand at what succeeded and at 429, though each answer to a valid key has them: at every
refusal they would be half of the document.
"""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from partner_api.http.codes import CODES

_DESCRIPTIONS: Final = {
    "X-Request-ID": "The request's id: yours if you sent one, else ours. Quote it to support.",
    "X-RateLimit-Limit": "Requests a minute that the key may make.",
    "X-RateLimit-Remaining": "Requests that would pass right now.",
    "X-RateLimit-Reset": "Seconds until all of the burst is there again.",
    "RateLimit-Policy": "The same, as draft-ietf-httpapi-ratelimit-headers-10 writes it.",
    "RateLimit": "The same, as draft-ietf-httpapi-ratelimit-headers-10 writes it.",
    "Retry-After": "Seconds after which the same request may be sent again.",
    "Idempotent-Replayed": "`true`: this was done before, and nothing was done twice.",
    "Deprecation": "When the key was rotated (RFC 9745), if it was: use its successor.",
    "Sunset": "When the key that was rotated ends (RFC 8594).",
}
COMPONENTS: Final[dict[str, Any]] = {
    name: {"description": description, "schema": {"type": "string"}}
    for name, description in _DESCRIPTIONS.items()
}
_OF_THE_LIMIT = (
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "RateLimit-Policy",
    "RateLimit",
)
_OF_A_ROTATED_KEY = ("Deprecation", "Sunset")


def reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/headers/{name}"}


def shared_headers(status: int, codes: Iterable[str], *, has_key: bool, is_idempotent: bool) -> list[str]:
    """Of an answer with this status, which may be a problem of these codes."""
    is_success = status < HTTPStatus.BAD_REQUEST
    names: list[str] = []
    if has_key and (is_success or status == HTTPStatus.TOO_MANY_REQUESTS):
        names += _OF_THE_LIMIT
    if has_key and is_success:
        names += _OF_A_ROTATED_KEY
    if is_idempotent and is_success:
        names.append("Idempotent-Replayed")
    # A code whose advice is to wait says for how long.
    if any("`Retry-After`" in CODES[code].advice for code in codes):
        names.append("Retry-After")
    return names
