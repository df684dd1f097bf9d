"""One id for a request, from the client's header to the Main API's log and to each line of our own.

A well-formed id from the client is kept, so that its log and ours can be joined; anything else is
replaced, because the id is copied into headers and log lines.
"""

import re
from collections.abc import Callable

import structlog
import uuid_utils
from django.http import HttpRequest, HttpResponse

HEADER = "X-Request-ID"
# Where Django has it; `request.headers` would gather all headers anew for one.
_IN_META = "HTTP_X_REQUEST_ID"
_WELL_FORMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


class RequestIdMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = accept_or_make(request.META.get(_IN_META, ""))
        request.request_id = request_id  # type: ignore[attr-defined]  # read by `of`
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        response = self.get_response(request)
        response[HEADER] = request_id
        return response


def accept_or_make(offered: str) -> str:
    """The offered id when it is 1 to 128 harmless characters, else a new one."""
    if _WELL_FORMED.fullmatch(offered):
        return offered
    return f"req_{uuid_utils.uuid7().hex}"


def of(request: object) -> str:
    """The id of a Django or DRF request; empty where none was given (a request built by hand)."""
    return str(getattr(request, "request_id", ""))
