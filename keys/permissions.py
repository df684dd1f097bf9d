"""Scopes, enforced: a view names one scope for each method, and a view that names none answers nobody."""

from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from keys import limits
from keys.models import ApiKey
from keys.refusals import PARTNERS, refuse
from keys.scopes import covers
from partner_api.http.problems import Problem

PUBLIC: Final = "public"


class HasScope(BasePermission):
    """Reads `view.scopes`: {"GET": "deed:read", …}, or PUBLIC in a scope's place."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Raises Problem: `authentication_required` or `insufficient_scope`."""
        method = handled_as(request)
        if method not in view.allowed_methods:
            return True  # no handler will run; DRF answers 405
        needed = scope_of(view, method)
        if needed == PUBLIC:
            if getattr(view, "is_limited", True):
                limits.count_public(request)
            return True
        key = request.auth
        if not isinstance(key, ApiKey):
            detail = "Send your API key as `Authorization: Bearer <key>`."
            refuse(request, "authentication_required", detail, challenge=PARTNERS)
        if not covers(key.scopes, needed):
            detail = f"This call needs the scope {needed}; the key {key.prefix} does not have it."
            raise Problem("insufficient_scope", detail, extra={"required_scope": needed})
        return True


def handled_as(request: Request) -> str:
    """The method whose handler answers, and whose scope is asked for: HEAD is GET without its body."""
    return "GET" if request.method == "HEAD" else str(request.method)


def scope_of(view: Any, method: str) -> str:
    """The one scope of a route. Raises ImproperlyConfigured where none is named."""
    try:
        return str(view.scopes[method])
    except (AttributeError, KeyError) as error:
        message = f"{type(view).__name__} names no scope for {method}"
        raise ImproperlyConfigured(message) from error
