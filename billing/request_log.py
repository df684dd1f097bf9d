"""Makes one row of each request that reaches the API, whatever became of it.

The row is in the spool before the answer is on its way, at the cost of one short write; a request is
never refused, nor its answer changed, because of it. Where rows go from there: billing.draining.
"""

import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final
from uuid import UUID

import structlog
import uuid_utils
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from billing import metrics, requests_left
from billing.cost_units import cost_of
from billing.draining import drainer, spool
from billing.routes import documented
from partner_api.http import request_id
from partner_api.http.client_address import address_of
from partner_api.http.routing import is_page
from partner_api.ops.request_metrics import method_of

log = structlog.get_logger(__name__)

# Served beside the API, and nobody's usage of it.
NOT_METERED: Final = (
    "/static/",
    "/docs/",
    "/docs",
    "/schema/",
    "/healthz",
    "/readyz",
    "/metrics",
    "/favicon.ico",
    "/robots.txt",
)
# No server of ours takes a body near this; the sums of any number of claims must still fit 64 bits.
_MAX_BYTES: Final = 2**32
# A worker that is told to stop at once ends its requests by an exception that is no answer.
_ABORTED: Final = 500


class RequestLogMiddleware:
    """Stands inside RequestIdMiddleware and outside of all else, to see every answer."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith(NOT_METERED) or is_page(request):
            return self.get_response(request)
        at = time.time()
        started = time.perf_counter()
        try:
            response = self.get_response(request)
        except BaseException:
            _write(request, at, started, status=_ABORTED, length=0, code="aborted")
            raise
        code = getattr(request, "problem_code", "")
        _write(request, at, started, status=response.status_code, length=_length_of(response), code=code)
        return response


def note_deeds(request: Any, deeds: Mapping[str, int]) -> None:
    """Says how many new deeds a request made, by type: once they are committed, because what is undone made
    none. Takes Django's and DRF's requests.
    """
    of_django = getattr(request, "_request", request)
    transaction.on_commit(partial(setattr, of_django, "new_deeds", deeds))


def route_of(request: HttpRequest) -> str:
    """The route as documents write it, `/v2/deeds/{deed_id}`; empty where none fits the path."""
    match = request.resolver_match
    return documented(match.route) if match else ""


def _write(request: HttpRequest, at: float, started: float, *, status: int, length: int, code: str) -> None:
    """Whatever goes wrong with the log is the log's, and is counted as a row that was lost.

    By now an order is committed, and its answer must reach the client. So this is where every kind of error
    ends: it is reported with its traceback (log, Sentry), and `UsageLost` alerts on the count.
    """
    try:
        row = _row(request, at, started, status=status, length=length, code=code)
        spool().append(json.dumps(row, separators=(",", ":")).encode())
        requests_left.give_back(request, status)
        drainer().ensure_running()
    except Exception:  # the answer is given: nothing here may take it back, and nothing is hidden
        metrics.usage_rows_lost.labels("error").inc()
        log.exception("usage_row_lost", reason="error")


def _row(
    request: HttpRequest, at: float, started: float, *, status: int, length: int, code: str
) -> tuple[Any, ...]:
    key = getattr(request, "api_key", None)
    # Known, but refused: who tries it is worth keeping, and whose request it was not.
    tried = key or getattr(request, "refused_key", None)
    deeds: Mapping[str, int] = getattr(request, "new_deeds", {})
    method = method_of(request)
    route = route_of(request)
    return (
        str(uuid_utils.uuid7()),
        at,
        None if key is None else str(key.partner_id),
        None if tried is None else str(tried.pk),
        None if key is None else key.livemode,
        method,
        route,
        status,
        code,
        round((time.perf_counter() - started) * 1000, 3),
        cost_of(method, route, status, deeds),
        sum(deeds.values()),
        # Several types by their numbers, because the contract may price each.
        dict(deeds) if len(deeds) > 1 else next(iter(deeds), ""),
        _deed_in_address(request),
        _claimed_length(request),
        length,
        address_of(request),
        request_id.of(request),
    )


def _deed_in_address(request: HttpRequest) -> str | None:
    """What was read or changed, should the key turn out to have been a thief's.

    In the first version's addresses a deed's id and a deed type have one place.
    """
    kwargs = request.resolver_match.kwargs if request.resolver_match else {}
    named = kwargs.get("deed_id") or kwargs.get("deed")
    try:
        return None if named is None else str(UUID(str(named)))
    except ValueError:
        return None


def _claimed_length(request: HttpRequest) -> int:
    """What the client says; 0 for a chunked body, whose length nobody says."""
    text = request.META.get("CONTENT_LENGTH") or ""
    return min(int(text), _MAX_BYTES) if text.isascii() and text.isdigit() and len(text) < 20 else 0  # noqa: PLR2004 - what fits 64 bits


def _length_of(response: HttpResponseBase) -> int:
    """Bytes of the body: of a file what it announces, because it is sent after its row is written."""
    if isinstance(response, HttpResponse):
        return len(response.content)
    announced = response.get("Content-Length", "")
    return int(announced) if announced.isdigit() else 0
