"""What an answer says of the key that asked: how much room it has left, and that it was replaced."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.utils.http import http_date

from keys.models import ApiKey
from keys.rate_limit import Decision


class KeyHeadersMiddleware:
    """For every answer to a request whose key was recognised, errors included."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        decision: Decision | None = getattr(request, "rate_decision", None)
        if decision is not None:
            _add_room(response, decision)
            _add_replacement(response, request.api_key)  # type: ignore[attr-defined]  # set together
        return response


def _add_room(response: HttpResponse, decision: Decision) -> None:
    """The common headers, and those of draft-ietf-httpapi-ratelimit-headers-10."""
    limit = decision.limit
    headers = response.headers
    headers["X-RateLimit-Limit"] = str(limit.per_minute)
    headers["X-RateLimit-Remaining"] = str(decision.remaining)
    headers["X-RateLimit-Reset"] = str(decision.reset_seconds)
    refill_seconds = -(-60 * limit.burst // limit.per_minute)
    headers["RateLimit-Policy"] = (
        f'"burst";q={limit.burst};w={refill_seconds}, "sustained";q={limit.per_minute};w=60'
    )
    headers["RateLimit"] = f'"burst";r={decision.remaining};t={decision.reset_seconds}'


def _add_replacement(response: HttpResponse, key: ApiKey) -> None:
    """RFC 9745 and RFC 8594: since when the key is the old one, and when it ends."""
    if key.rotated_at is not None and key.expires_at is not None:
        response.headers["Deprecation"] = f"@{int(key.rotated_at.timestamp())}"
        response.headers["Sunset"] = http_date(key.expires_at.timestamp())
