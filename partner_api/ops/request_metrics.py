"""Counts each answer. Labels are bounded: a route and never a path, known methods, four kinds of callers."""

import time
from collections.abc import Callable
from typing import Final

from django.http import HttpRequest, HttpResponse

from partner_api.ops.metrics import PROBLEMS, REQUEST_SECONDS, REQUESTS

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMetricsMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        started = time.perf_counter()
        response = self.get_response(request)
        match = request.resolver_match
        route = match.route if match else "unmatched"
        REQUESTS.labels(route, method_of(request), response.status_code, _class_of(request)).inc()
        REQUEST_SECONDS.labels(route).observe(time.perf_counter() - started)
        code = getattr(request, "problem_code", "")
        if code:
            PROBLEMS.labels(code).inc()
        return response


def method_of(request: HttpRequest) -> str:
    """`other` for a method that nobody knows: a client may invent any number of them."""
    return str(request.method) if request.method in _METHODS else "other"


def _class_of(request: HttpRequest) -> str:
    """`live` or `test` by the key, `staff`, or `none` for whoever did not say who it is."""
    key = getattr(request, "api_key", None)
    if key is not None:
        return str(key.environment)
    user = getattr(request, "_cached_user", None)
    return "staff" if user is not None and user.is_staff else "none"
