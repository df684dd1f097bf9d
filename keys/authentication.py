"""The only place where it is decided whether a key lets a request in, and whose request it is.

What is wrong with a key is told only to who holds its secret; to all others an id that exists and one
that doesn't look alike.
"""

import datetime as dt
import ipaddress
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import structlog
from django.conf import settings
from django.db.models import Q
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from keys import gate, key_cache, limits
from keys.key_cache import KnownKey
from keys.models import ApiKey, Partner
from keys.rate_limit import Decision, Limit
from keys.refusals import PARTNERS, refuse
from keys.secret import PATTERN, KeyText
from partner_api.http.client_address import address_of
from partner_api.http.problems import Problem

NOT_OURS: Final = "This is not one of our keys; check that it is whole."

DETAILS = {
    "api_key_expired": "This key has expired; ask for a new one.",
    "api_key_revoked": "This key was revoked; ask for a new one.",
    "invalid_api_key": "This key is not valid yet.",
    "ip_not_allowed": "This key may not be used from this address.",
    "partner_suspended": "This partner's account is suspended; write to support.",
}
# A key may change between reading it and counting its request, but not again and again.
_TRIES: Final = 4


class PartnerRequest(Request):
    """How a view sees a request that passed: whose it is, and by which key. For type checkers.

    Both are shared by all requests of the process: a view that changes one reads its own first.
    """

    if TYPE_CHECKING:
        partner: Partner
        api_key: ApiKey


class ApiKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer <key>` or `X-API-Key: <key>`."""

    def authenticate(self, request: Request) -> tuple[Partner, ApiKey] | None:
        """None without credentials.

        Raises Problem: 401 for credentials that don't hold, `rate_limited` for too many requests.
        """
        query = request.META.get("QUERY_STRING", "")
        if PATTERN.search(query) or ("%" in query and PATTERN.search(unquote(query))):
            detail = "A key must never stand in an address, which is logged on its way: have it revoked."
            refuse(request, "invalid_api_key", detail, challenge=PARTNERS)
        offered = _offered(request)
        if offered is None:
            return None
        address, now = address_of(request), timezone.now()
        key, decision = _admitted(request, offered, address, now)
        # On Django's request too: what comes after the view (headers, the request log) sees only that one.
        request._request.api_key = key  # type: ignore[attr-defined]  # noqa: SLF001
        request._request.rate_decision = decision  # type: ignore[attr-defined]  # noqa: SLF001
        limits.refuse_too_many(decision, "key")
        _note_use(key, now, address)
        request._request.idempotency_scope = f"{key.partner_id}:{key.environment}"  # type: ignore[attr-defined]  # noqa: SLF001 - as above
        request.partner = key.partner  # type: ignore[attr-defined]  # see PartnerRequest
        request.api_key = key  # type: ignore[attr-defined]  # see PartnerRequest
        return key.partner, key

    def authenticate_header(self, request: Request) -> str:
        return PARTNERS


def _admitted(
    request: Request, offered: str, address: str | None, now: dt.datetime
) -> tuple[ApiKey, Decision]:
    """The key as it is now, its request counted. Raises Problem for one that may not be used, or not now.

    Who may not use it is not counted: a thief outside of its networks would use up the room of its owner.
    """
    text = KeyText.parse(offered)
    if text is None:
        refuse(request, "invalid_api_key", NOT_OURS, challenge=PARTNERS)
    for _ in range(_TRIES):
        known = key_cache.recall(text.id) or _load(text.id)
        if known is None or not known.key.matches(text):
            refuse(request, "invalid_api_key", NOT_OURS, challenge=PARTNERS)
        key = known.key
        # Before anything is refused: the log says whose key it was.
        structlog.contextvars.bind_contextvars(partner=str(key.partner_id), key=key.prefix)
        code = key.refusal_at(now) or (None if _is_allowed(known, address) else "ip_not_allowed")
        if code is None:
            limit = Limit(key.rate_limit_per_minute, key.rate_limit_burst)
            decision = gate.count(text.id, known.tag, limit)
            if decision is not None:
                return key, decision
        elif not known.tag or gate.tag_of(text.id) == known.tag:
            # For the request log alone: to all else a refused key is no key.
            request._request.refused_key = key  # type: ignore[attr-defined]  # noqa: SLF001 - as above
            refuse(request, code, DETAILS[code], challenge=PARTNERS)
        key_cache.forget(text.id)
    detail = "The key is being changed; send the request again."
    raise Problem("rate_limited", detail, headers={"Retry-After": "1"})


def _load(key_id: str) -> KnownKey | None:
    """Only keys that exist get a tag: whoever made up ids would fill Redis with them."""
    return key_cache.load(key_id, gate.tag_of(key_id)) if key_cache.exists(key_id) else None


def _is_allowed(known: KnownKey, address: str | None) -> bool:
    if not known.networks:
        return True
    if address is None:
        return False
    parsed = ipaddress.ip_address(address)
    return any(parsed in network for network in known.networks)


def _note_use(key: ApiKey, now: dt.datetime, address: str | None) -> None:
    """Writes when and from where the key was used, once in KEY_LAST_USED_SECONDS.

    A use further ahead than that was written by a clock that has been set right since, and says nothing.
    """
    moment = dt.timedelta(seconds=settings.KEY_LAST_USED_SECONDS)
    since, ahead = now - moment, now + moment
    if key.last_used_at is not None and since < key.last_used_at <= ahead:
        return
    # The one thing that may be written on a key that others share: it decides only about this write.
    key.last_used_at = now
    not_lately = Q(last_used_at=None) | Q(last_used_at__lte=since) | Q(last_used_at__gt=ahead)
    ApiKey.objects.filter(not_lately, pk=key.pk).update(last_used_at=now, last_used_address=address)


def _offered(request: Request) -> str | None:
    authorization = request.META.get("HTTP_AUTHORIZATION")
    api_key = request.META.get("HTTP_X_API_KEY")
    bearer = None
    if authorization is not None:
        scheme, _, bearer = authorization.partition(" ")
        bearer = bearer.strip()
        if scheme.lower() != "bearer" or not bearer:
            refuse(
                request,
                "invalid_api_key",
                "Send the key as `Authorization: Bearer <key>`.",
                challenge=PARTNERS,
            )
    if bearer is not None and api_key is not None and bearer != api_key.strip():
        detail = "Authorization and X-API-Key hold different keys; send one of them."
        refuse(request, "invalid_api_key", detail, challenge=PARTNERS)
    return bearer if bearer is not None else (api_key.strip() if api_key is not None else None)
