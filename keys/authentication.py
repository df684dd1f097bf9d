"""The only place where it is decided whether a request comes from a partner, and from which.

What is wrong with a key is told only to who holds its secret; all others get one and the same
answer, after the same work.
"""

from typing import TYPE_CHECKING

import structlog
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from keys.models import ApiKey, Partner
from keys.secret import KeyText
from partner_api.http.problems import Problem

CHALLENGE = {"WWW-Authenticate": 'Bearer realm="partner-api"'}

DETAILS = {
    "api_key_expired": "This key has expired; ask for a new one.",
    "api_key_revoked": "This key was revoked; ask for a new one.",
    "partner_suspended": "This partner's account is suspended; write to support.",
}


class PartnerRequest(Request):
    """How a view sees a request that passed: whose it is, and by which key. For type checkers."""

    if TYPE_CHECKING:
        partner: Partner
        api_key: ApiKey


class ApiKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer <key>` or `X-API-Key: <key>`."""

    def authenticate(self, request: Request) -> tuple[Partner, ApiKey] | None:
        """None without credentials. Raises Problem with status 401 for any that don't hold."""
        offered = _offered(request)
        if offered is None:
            return None
        text = KeyText.parse(offered)
        key = ApiKey.objects.select_related("partner").filter(key_id=text.id).first() if text else None
        if text is None or key is None or not key.matches(text):
            raise refused("invalid_api_key", "This is not one of our keys; check that it is whole.")
        refusal = key.refusal_at(timezone.now())
        if refusal is not None:
            raise refused(refusal, DETAILS[refusal])
        structlog.contextvars.bind_contextvars(partner=str(key.partner_id), key=key.prefix)
        # On Django's request too: what comes after the view (the request log) sees only that one.
        request._request.api_key = key  # type: ignore[attr-defined]  # noqa: SLF001
        request._request.idempotency_scope = f"{key.partner_id}:{key.environment}"  # type: ignore[attr-defined]  # noqa: SLF001 - as above
        request.partner = key.partner  # type: ignore[attr-defined]  # see PartnerRequest
        request.api_key = key  # type: ignore[attr-defined]  # see PartnerRequest
        return key.partner, key

    def authenticate_header(self, request: Request) -> str:
        return CHALLENGE["WWW-Authenticate"]


def refused(code: str, detail: str) -> Problem:
    return Problem(code, detail, headers=CHALLENGE)


def _offered(request: Request) -> str | None:
    authorization = request.headers.get("Authorization")
    api_key = request.headers.get("X-API-Key")
    bearer = None
    if authorization is not None:
        scheme, _, bearer = authorization.partition(" ")
        bearer = bearer.strip()
        if scheme.lower() != "bearer" or not bearer:
            raise refused("invalid_api_key", "Send the key as `Authorization: Bearer <key>`.")
    if bearer is not None and api_key is not None and bearer != api_key.strip():
        raise refused("invalid_api_key", "Authorization and X-API-Key hold different keys; send one of them.")
    return bearer if bearer is not None else (api_key.strip() if api_key is not None else None)
