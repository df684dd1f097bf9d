"""What stands before every page of the admin: the allowed networks, and the end of a session.

A session ends after STAFF_IDLE_SECONDS without a request, and SESSION_COOKIE_AGE after the login
whatever happens; Django alone would move that end with each change of the session. One that was begun or
seen in the future ends too: the clock was moved back, and nobody knows how old it is.
"""

import time
from collections.abc import Callable
from typing import Final

from django.conf import settings
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse

from partner_api.http.client_address import address_of, is_within
from partner_api.http.problems import not_found, respond
from partner_api.http.routing import is_page

_Next = Callable[[HttpRequest], HttpResponse]
# Often enough for the idle time, seldom enough not to write the session with each request.
_NOTE_SECONDS: Final = 60
# Between our machines.
_CLOCKS_DIFFER_SECONDS: Final = 60


class AllowedNetworks:
    """Outside of ADMIN_ALLOWED_CIDRS there is no admin: the answer is that to any unknown address."""

    def __init__(self, get_response: _Next) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        allowed = settings.ADMIN_ALLOWED_CIDRS
        if allowed and is_page(request) and not is_within(address_of(request), allowed):
            return respond(request, not_found())
        return self.get_response(request)


def begin(request: HttpRequest) -> None:
    """At a login: from here on the session's time runs."""
    request.session["started_at"] = request.session["seen_at"] = time.time()


class SessionLimits:
    def __init__(self, get_response: _Next) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if is_page(request) and request.user.is_authenticated:
            self._limit(request, time.time())
        return self.get_response(request)

    def _limit(self, request: HttpRequest, now: float) -> None:
        session = request.session
        started, seen = session.setdefault("started_at", now), session.setdefault("seen_at", now)
        is_over = now - started >= settings.SESSION_COOKIE_AGE or now - seen >= settings.STAFF_IDLE_SECONDS
        if is_over or max(started, seen) - now > _CLOCKS_DIFFER_SECONDS:
            logout(request)
        elif now - seen >= min(_NOTE_SECONDS, settings.STAFF_IDLE_SECONDS / 4):
            session["seen_at"] = now
