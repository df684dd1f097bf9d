"""Which requests pay for sessions: staff pages do, the API doesn't.

Sessions, CSRF, users and messages belong to the admin. Running them for an API call would cost time
and let a browser's cookie mean something where only a key may.
"""

from typing import Any

from django.contrib.auth import middleware as auth
from django.contrib.messages import middleware as messages
from django.contrib.sessions import middleware as sessions
from django.http import HttpRequest, HttpResponseForbidden
from django.middleware import csrf
from django.utils.deprecation import MiddlewareMixin

PAGES = ("/admin/",)


def is_page(request: HttpRequest) -> bool:
    """Whether the path is served to staff's browsers rather than to API clients."""
    return request.path_info.startswith(PAGES)


class _PagesOnly(MiddlewareMixin):
    """Before one of Django's middlewares: passes all other requests by."""

    def __call__(self, request: HttpRequest) -> Any:
        return super().__call__(request) if is_page(request) else self.get_response(request)


class SessionMiddleware(_PagesOnly, sessions.SessionMiddleware):
    pass


class CsrfViewMiddleware(_PagesOnly, csrf.CsrfViewMiddleware):
    def process_view(
        self, request: HttpRequest, callback: Any, callback_args: Any, callback_kwargs: Any
    ) -> HttpResponseForbidden | None:
        if not is_page(request):
            return None
        return super().process_view(request, callback, callback_args, callback_kwargs)


class AuthenticationMiddleware(_PagesOnly, auth.AuthenticationMiddleware):
    pass


class MessageMiddleware(_PagesOnly, messages.MessageMiddleware):
    pass
