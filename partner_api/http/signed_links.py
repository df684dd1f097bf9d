"""Links that carry their own permission: what, until when, and a signature over both.

Only the holder of SECRET_KEY (or of a SECRET_KEY_FALLBACKS while it is rotated) can make one. A link
that is wrong in any way looks like a page that does not exist.
"""

import time
from urllib.parse import urlencode

from django.conf import settings
from django.core.signing import BadSignature, Signer

_SALT = "partner_api.http.signed_links"


def sign(path: str, *, expires_at: int) -> str:
    """`path` with `expires` (Unix seconds) and `signature` in its query."""
    query = {"expires": expires_at, "signature": _signer().signature(_text(path, str(expires_at)))}
    return f"{path}?{urlencode(query)}"


def is_valid(path: str, expires: str, signature: str, *, now: float | None = None) -> bool:
    """Whether we signed exactly this path and time, and the time has not passed."""
    try:
        _signer().unsign(f"{_text(path, expires)}:{signature}")
    except BadSignature:
        return False
    return int(expires) > (time.time() if now is None else now)


def _text(path: str, expires: str) -> str:
    return f"{path}|{expires}"


def _signer() -> Signer:
    return Signer(key=settings.SECRET_KEY, fallback_keys=settings.SECRET_KEY_FALLBACKS, salt=_SALT)
