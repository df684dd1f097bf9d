"""What browsers may do with our answers. The API's are data and may do nothing; our pages load from us alone.

The admin is an exception: unfold's scripts stand in its pages and are evaluated there (Alpine), so that a
policy without 'unsafe-inline' and 'unsafe-eval' would leave staff a page that does not work. It is for
staff who logged in, shows text escaped by Django's templates, and still loads nothing from elsewhere.
"""

from collections.abc import Callable
from typing import Final

from django.http import HttpRequest, HttpResponse

from partner_api.http.routing import is_page

_CSP: Final = "Content-Security-Policy"
DATA: Final = "default-src 'none'; frame-ancestors 'none'"
PAGE: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Redoc writes its styles into the page while it runs, and shows nothing without them. Styles only: its
# script still comes from us, and none may stand in the page.
REDOC: Final = PAGE.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
ADMIN: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_ALWAYS: Final = {
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class SecurityHeadersMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        for name, value in _ALWAYS.items():
            response.headers.setdefault(name, value)
        if _CSP not in response.headers:
            response[_CSP] = _policy(request, response)
        return response


def _policy(request: HttpRequest, response: HttpResponse) -> str:
    if is_page(request):
        return ADMIN
    return PAGE if response.get("Content-Type", "").startswith("text/html") else DATA
