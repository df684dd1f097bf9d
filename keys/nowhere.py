"""Addresses that lead nowhere: a key that is sent there is checked and counted as anywhere else, and without
one the address counts, so that nobody tries them all for nothing.
"""

from typing import Any, ClassVar, Final

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import is_valid_path
from django.views import View
from rest_framework.request import Request

from keys import limits
from partner_api.http import problems
from partner_api.http.negotiation import AnyAccept
from partner_api.http.problems import Problem
from partner_api.http.routing import is_page
from partner_api.http.view import ApiView

_OF_PARTNERS: Final = ("/v1/", "/v2/")


class Nowhere(ApiView):
    scopes: ClassVar[dict[str, str]] = {}
    permission_classes = ()
    content_negotiation_class = AnyAccept
    http_method_names = list(View.http_method_names)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Raises Problem: `not_found`, `rate_limited`, and what authentication raises."""
        super().initial(request, *args, **kwargs)
        if request.auth is None:
            limits.count_public(request)
        raise _not_found(request._request)  # noqa: SLF001 - DRF wraps Django's request


_nowhere = Nowhere.as_view()


def handler404(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    if is_page(request):
        return problems.handler404(request, exception)
    if request.path_info.startswith(_OF_PARTNERS):
        return _nowhere(request)
    return _counted(request)


def _counted(request: HttpRequest) -> HttpResponse:
    try:
        limits.count_public(request)
    except Problem as problem:
        return problems.respond(request, problem)
    return problems.respond(request, _not_found(request))


def _not_found(request: HttpRequest) -> Problem:
    """A slash too many is named: it is the client library's habit, and looks like a wrong key otherwise."""
    path = request.path_info
    without = path.rstrip("/")
    if path != without and is_valid_path(without):
        return Problem("not_found", f"Addresses have no slash at their end here: {without}.")
    return problems.not_found()
