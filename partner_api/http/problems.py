"""Every error an API client can meet, as RFC 9457 `application/problem+json`.

One exception type carries code, status and detail; one handler shapes it. Django's own error pages
(unknown path, bad host, crash) end here as well, so that no client ever gets HTML.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.views import defaults
from rest_framework import exceptions
from rest_framework.response import Response

from partner_api.http import request_id
from partner_api.http.codes import CODES
from partner_api.http.routing import is_page

CONTENT_TYPE = "application/problem+json"

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class FieldError:
    """One thing wrong with the request.

    `pointer` is a JSON Pointer (RFC 6901) into the body, or into the query as an object when
    `where` is "query".
    """

    pointer: str
    code: str
    message: str
    where: str = "body"

    def as_dict(self) -> dict[str, str]:
        error = {"pointer": self.pointer, "code": self.code, "message": self.message}
        return error if self.where == "body" else {**error, "in": self.where}


@dataclass
class Problem(Exception):
    """Raise it anywhere under a view. `code` is one of CODES and decides status and title."""

    code: str
    detail: str
    errors: list[FieldError] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    # What must stand although the transaction of the request is undone: that a quota was exceeded.
    after_undoing: Callable[[], object] | None = None

    @property
    def status(self) -> int:
        return CODES[self.code].status

    def as_dict(self, of_request: str) -> dict[str, Any]:
        """The body; `of_request` is the request id."""
        known = CODES[self.code]
        body = {
            "type": f"{settings.PUBLIC_BASE_URL}/docs/errors#{self.code}",
            "title": known.title,
            "status": known.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": of_request,
            **self.extra,
        }
        if self.errors:
            body["errors"] = [error.as_dict() for error in self.errors]
        return body


def invalid(errors: list[FieldError]) -> Problem:
    """A 422 whose detail repeats the first error, so that a log of details alone is useful."""
    first = errors[0]
    more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
    return Problem("validation_error", f"{first.pointer or 'body'}: {first.message}{more}", errors)


def not_found() -> Problem:
    """The same words for what is absent and for what is someone else's."""
    return Problem("not_found", "There is nothing here under this address and key.")


def unread(error: BaseException | None) -> Problem:
    """For a body that did not all come."""
    # Django wraps what reading raises, twice where it reads all.
    while isinstance(error, UnreadablePostError):
        error = error.__cause__
    if isinstance(error, TimeoutError):
        return Problem("request_timeout", "The body did not all come in time.")
    return Problem("bad_request", "The body did not all come.")


def handle(exc: Exception, context: Mapping[str, Any]) -> Response | None:
    """DRF's EXCEPTION_HANDLER. None (a crash) goes on to Django's handler500 and to its log."""
    problem = _as_problem(exc, context)
    if problem is None:
        return None
    request = context["request"]
    request._request.problem_code = problem.code  # noqa: SLF001 - DRF wraps Django's request
    return Response(
        problem.as_dict(request_id.of(request)),
        status=problem.status,
        headers=problem.headers,
        content_type=CONTENT_TYPE,
    )


def respond(request: HttpRequest, problem: Problem) -> HttpResponse:
    """The same answer outside of DRF."""
    request.problem_code = problem.code  # type: ignore[attr-defined]  # read by the access log
    return JsonResponse(
        problem.as_dict(request_id.of(request)),
        status=problem.status,
        headers=problem.headers,
        content_type=CONTENT_TYPE,
    )


def handler400(request: HttpRequest, exception: Exception) -> HttpResponse:
    if is_page(request):
        return defaults.bad_request(request, exception)
    return respond(request, Problem("bad_request", "The request's host or headers are not valid."))


def handler403(request: HttpRequest, exception: Exception) -> HttpResponse:
    if is_page(request):
        return defaults.permission_denied(request, exception)
    return respond(request, Problem("forbidden", "This is not allowed."))


def handler404(request: HttpRequest, exception: Exception) -> HttpResponse:
    if is_page(request):
        return defaults.page_not_found(request, exception)
    return respond(request, not_found())


def handler500(request: HttpRequest) -> HttpResponse:
    if is_page(request):
        return defaults.server_error(request)
    detail = "The error was logged under this request id; nothing was stored or charged half-way."
    return respond(request, Problem("internal_error", detail))


def _as_problem(exc: Exception, context: Mapping[str, Any]) -> Problem | None:
    if isinstance(exc, Problem):
        return exc
    if isinstance(exc, exceptions.MethodNotAllowed):
        allowed = ", ".join(context["view"].allowed_methods)
        detail = f"{context['request'].method} is not offered here. Offered: {allowed}."
        return Problem("method_not_allowed", detail, headers={"Allow": allowed})
    if isinstance(exc, exceptions.UnsupportedMediaType):
        return Problem("unsupported_media_type", "Send the body as Content-Type: application/json.")
    if isinstance(exc, exceptions.NotAcceptable):
        return Problem("not_acceptable", "Answers are application/json; accept that or */*.")
    if isinstance(exc, Http404 | exceptions.NotFound):
        return not_found()
    if isinstance(exc, PermissionDenied | exceptions.PermissionDenied):
        return Problem("forbidden", "This is not allowed.")
    if isinstance(exc, UnreadablePostError):
        return unread(exc)
    if isinstance(exc, OperationalError):
        # No connection, a lock or an answer that took too long, a deadlock: it may pass by itself.
        log.error("database_unavailable", exc_info=exc)
        detail = (
            "The database was away or too busy. Send the same request again: an order, and a request with an "
            "Idempotency-Key, is done once."
        )
        return Problem("database_unavailable", detail, headers={"Retry-After": "1"})
    return None
