"""The public keys that admin tokens are signed with, fetched from ADMIN_JWKS_URL and kept for a while.

A key id that is not known is a sign of rotation: the set is fetched again, but not more often than the
cool-down allows, so that made-up ids can't make us call the publisher for each request.
"""

import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import jwt
import requests
import structlog
import urllib3
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from django.conf import settings

from partner_api.http.problems import Problem

log = structlog.get_logger(__name__)

MAX_BYTES = 256 * 1024
CONNECT_SECONDS, READ_SECONDS = 2.0, 3.0
# For all of an answer: who waits for it holds a thread, and READ_SECONDS begins anew with each byte.
WHOLE_SECONDS = 5.0
MIN_BITS = 2048
_PIECE = 16 * 1024


@dataclass
class KeySet:
    """The keys of one URL, by id, as last fetched."""

    url: str
    keys: dict[str, RSAPublicKey] = field(default_factory=dict)
    fetched_at: float | None = None
    tried_at: float | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key_id: str) -> RSAPublicKey | None:
        """Raises Problem `identity_provider_unavailable` when no set could be fetched for too long."""
        now = time.monotonic()
        # Who asks for a known key does not wait for another who fetches.
        if self._is_due(key_id, now) and self.lock.acquire(blocking=key_id not in self.keys):
            try:
                if self._may_try(now) and self._is_due(key_id, now):
                    self._fetch(now)
            finally:
                self.lock.release()
        age = None if self.fetched_at is None else now - self.fetched_at
        if age is None or age > settings.ADMIN_JWKS_STALE_SECONDS:
            detail = "The keys that tokens are signed with can't be fetched at the moment."
            raise Problem("identity_provider_unavailable", detail, headers={"Retry-After": "30"})
        return self.keys.get(key_id)

    def _is_due(self, key_id: str, now: float) -> bool:
        return self._is_stale(now) or key_id not in self.keys

    def _is_stale(self, now: float) -> bool:
        return self.fetched_at is None or now - self.fetched_at > settings.ADMIN_JWKS_CACHE_SECONDS

    def _may_try(self, now: float) -> bool:
        return self.tried_at is None or now - self.tried_at >= settings.ADMIN_JWKS_COOLDOWN_SECONDS

    def _fetch(self, now: float) -> None:
        self.tried_at = now
        try:
            self.keys = _keys_in(_download(self.url))
        except (
            requests.RequestException,
            # What requests leaves as it is, because the body is read past it.
            urllib3.exceptions.HTTPError,
            ValueError,
            # JSON that is nested deeper than Python reads.
            RecursionError,
        ) as error:
            # The keys known so far go on being good until they are too old.
            log.warning("jwks_unavailable", reason=type(error).__name__)
        else:
            self.fetched_at = now


_sets: dict[str, KeySet] = {}


def key_of(token: str) -> RSAPublicKey | None:
    """The key that the token's header names. Raises jwt.InvalidTokenError for text that is no token."""
    key_id = jwt.get_unverified_header(token).get("kid")
    if not isinstance(key_id, str):
        return None
    url = settings.ADMIN_JWKS_URL
    return _sets.setdefault(url, KeySet(url)).get(key_id)


def forget() -> None:
    """As a new process starts: nothing fetched yet."""
    _sets.clear()


def _download(url: str) -> bytes:
    with requests.get(
        url, timeout=(CONNECT_SECONDS, READ_SECONDS), allow_redirects=False, stream=True
    ) as answer:
        if answer.status_code != requests.codes.ok:
            message = f"the JWKS answered {answer.status_code}"
            raise ValueError(message)
        return _read(answer.raw, until=time.monotonic() + WHOLE_SECONDS)


def _read(raw: Any, *, until: float) -> bytes:
    body = b""
    while piece := raw.read1(_PIECE, decode_content=True):
        body += piece
        if len(body) > MAX_BYTES:
            message = "the JWKS is too large"
            raise ValueError(message)
        if time.monotonic() > until:
            message = "the JWKS comes too slowly"
            raise ValueError(message)
    return body


def _keys_in(body: bytes) -> dict[str, RSAPublicKey]:
    """RSA keys with an id. What is of another kind, or no key, does not spoil the set (RFC 7517, section 5).

    Raises ValueError when there is none.
    """
    document = json.loads(body)
    entries = document.get("keys") if isinstance(document, dict) else None
    keys: dict[str, RSAPublicKey] = {}
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict) or entry.get("kty") != "RSA" or entry.get("use", "sig") != "sig":
            continue
        if entry.get("alg", "RS256") != "RS256" or not isinstance(entry.get("kid"), str):
            continue
        try:
            key = jwt.PyJWK(entry, algorithm="RS256").key
        except jwt.PyJWTError as error:
            log.warning("jwks_entry_unusable", kid=entry["kid"][:100], reason=type(error).__name__)
            continue
        if isinstance(key, RSAPublicKey) and key.key_size >= MIN_BITS:
            keys[entry["kid"]] = key
    if not keys:
        message = "the JWKS has no RSA key for RS256"
        raise ValueError(message)
    return keys
