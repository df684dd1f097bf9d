"""The access log: a line for each answer, with its latency.

There is one for every request, so it does not go the long way of all other lines (through the standard
library's records, filters and handlers), which costs three times as much; it looks the same and loses the
same secrets.
"""

import contextlib
import datetime as dt
import json
import logging
import os
import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponse

from partner_api.ops.redaction import redact

_level = logging.getLogger(__name__)
_readable = structlog.get_logger(__name__)
_STDERR: Final = 2


class AccessLogMiddleware:
    """Stands inside RequestIdMiddleware, which binds what every line carries."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self.write = _write if settings.LOG_FORMAT == "json" else _readable.info

    def __call__(self, request: HttpRequest) -> HttpResponse:
        started = time.perf_counter()
        response = self.get_response(request)
        if _level.isEnabledFor(logging.INFO):
            match = request.resolver_match
            self.write(
                "request",
                method=request.method,
                # The route, not the path: a path can hold what a partner would not have logged.
                route=match.route if match else "",
                status=response.status_code,
                code=getattr(request, "problem_code", ""),
                latency_ms=round((time.perf_counter() - started) * 1000, 1),
            )
        return response


def _write(event: str, **facts: Any) -> None:
    line = json.dumps(
        facts
        | structlog.contextvars.get_contextvars()
        | {"event": event, "logger": __name__, "level": "info", "timestamp": _now()}
    )
    # In one piece, so that no other line gets between. A full disk is no reason to fail a request.
    with contextlib.suppress(OSError):
        os.write(_STDERR, f"{redact(line)}\n".encode())


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat().replace("+00:00", "Z")
