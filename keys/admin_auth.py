"""Who may call the admin API: a JWT of the company's back office, with a role.

Either HS256 with a secret that the Main API shares, or RS256 with keys published as a JWKS; never both,
because a verifier that takes both can be given a public key as an HMAC secret.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

import jwt
import structlog
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from keys import jwks, roles
from keys.audit import Actor
from keys.permissions import PUBLIC
from keys.refusals import BACK_OFFICE, refuse
from partner_api.http.client_address import address_of, is_within
from partner_api.http.problems import Problem, not_found
from partner_api.http.view import ApiView


@dataclass(frozen=True)
class AdminToken:
    """A token that passed: who sent it, and what it may do. `roles` are names of keys.roles."""

    subject: str
    roles: frozenset[str]

    is_authenticated: ClassVar = True


class AdminTokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer <JWT>`."""

    def authenticate(self, request: Request) -> tuple[AdminToken, AdminToken]:
        """Raises Problem: `not_found` where the admin API is off or the address is not allowed, else 401, and
        `rate_limited` for too many of those from one address."""
        refuse_unless_on(request, is_on=bool(settings.ADMIN_JWT_SECRET or settings.ADMIN_JWKS_URL))
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if not scheme:
            detail = "Send an admin token as `Authorization: Bearer <JWT>`."
            refuse(request, "authentication_required", detail, challenge=BACK_OFFICE)
        claims = _claims(text.strip()) if scheme.lower() == "bearer" else None
        if claims is None:
            detail = "This token is not one that is accepted here, or not now."
            refuse(request, "invalid_token", detail, challenge=BACK_OFFICE)
        token = AdminToken(str(claims["sub"])[:200], _roles(claims))
        structlog.contextvars.bind_contextvars(admin_token=token.subject)
        # A digest, because a subject may be longer than what is kept; no partner's scope looks like it.
        subject = hashlib.sha256(str(claims["sub"]).encode()).hexdigest()
        request._request.idempotency_scope = f"admin:{subject}"  # type: ignore[attr-defined]  # noqa: SLF001 - see ApiView
        return token, token

    def authenticate_header(self, request: Request) -> str:
        return BACK_OFFICE


class HasRole(BasePermission):
    """Reads `view.roles`: {"GET": "support", …}, one role for each method; PUBLIC where a view checks its
    caller by other means than a token."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Raises Problem `insufficient_role`, which names the role."""
        method = "GET" if request.method == "HEAD" else str(request.method)
        if method not in view.allowed_methods:
            return True  # no handler will run; DRF answers 405
        needed = view.roles.get(method)
        if needed is None:
            message = f"{type(view).__name__} names no role for {method}"
            raise ImproperlyConfigured(message)
        if needed == PUBLIC:
            return True
        token: Any = request.auth
        if not any(roles.includes(held, needed) for held in token.roles):
            detail = f"This call needs the role {needed}; the token does not have it."
            raise Problem("insufficient_role", detail, extra={"required_role": needed})
        return True


class AdminApiView(ApiView):
    # Partners' OpenAPI document does not show what they can't call; docs/admin-api.md does.
    schema = None
    authentication_classes = [AdminTokenAuthentication]
    permission_classes = [HasRole]
    roles: ClassVar[dict[str, str]]


def actor_of(request: Request) -> Actor:
    token: Any = request.auth
    return Actor.token(request, token.subject)


def refuse_unless_on(request: Request, *, is_on: bool) -> None:
    """Raises Problem `not_found`, as if there were nothing, where it is off or the address not allowed."""
    allowed = settings.ADMIN_API_ALLOWED_CIDRS
    if not is_on or (allowed and not is_within(address_of(request), allowed)):
        raise not_found()


def _claims(text: str) -> dict[str, Any] | None:
    """None for a token that does not hold, or names nobody, whatever the reason."""
    if settings.ADMIN_JWT_SECRET and settings.ADMIN_JWKS_URL:
        message = "ADMIN_JWT_SECRET and ADMIN_JWKS_URL are both set; tokens are checked by one of them."
        raise ImproperlyConfigured(message)
    try:
        if settings.ADMIN_JWT_SECRET:
            key, algorithm = settings.ADMIN_JWT_SECRET, "HS256"
        else:
            key, algorithm = jwks.key_of(text), "RS256"
        if key is None:
            return None
        claims: dict[str, Any] = jwt.decode(
            text,
            key,
            algorithms=[algorithm],
            audience=settings.ADMIN_JWT_AUDIENCE,
            issuer=settings.ADMIN_JWT_ISSUER,
            leeway=settings.ADMIN_JWT_LEEWAY_SECONDS,
            options={"require": ["exp", "aud", "iss", "sub"], "strict_aud": False},
        )
    except (jwt.InvalidTokenError, ValueError, OverflowError):
        return None
    return claims if _is_name(claims["sub"]) else None


def _is_name(subject: Any) -> bool:
    """Whether it can stand in the audit trail as who did it: not empty, and text that Postgres can keep."""
    return isinstance(subject, str) and bool(subject.strip()) and subject.isprintable()


def _roles(claims: dict[str, Any]) -> frozenset[str]:
    """The claim is one role or a list of them; what we don't know grants nothing."""
    given = claims.get(settings.ADMIN_JWT_ROLE_CLAIM)
    names = given if isinstance(given, list) else [given]
    known = {roles.OF_CLAIM.get(name) for name in names if isinstance(name, str)}
    return frozenset(name for name in known if name is not None)
