"""The only place that speaks to the Main API (and to the sandbox, which is the same to us).

A render is free of side effects there, so a call may be repeated. What may help is repeated here, a
few times within seconds; what may help later is told to the caller; what never will, too.
"""

import json
import random
import threading
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import quote

import requests
import tenacity
from django.conf import settings
from django.utils import timezone

from deeds import order_metrics

_LIMIT_REASON: Final = 2000
_CHUNK: Final = 64 * 1024
_TOO_MANY: Final = 429
_REQUEST_TIMEOUT: Final = 408
_SERVER_ERROR: Final = 500
_OK: Final = 200
_local = threading.local()


@dataclass(frozen=True)
class Renderer:
    """Where deeds of one mode are rendered."""

    name: str
    base_url: str
    token: str


@dataclass(frozen=True)
class Call:
    """One deed to render. The ids go along as headers; the Main API's log can be joined by them."""

    path: str
    body: dict[str, Any]
    request_id: str
    deed_id: str
    order_id: str


class MainApiError(Exception):
    """No PDF. `code` is one of ours, `is_temporary` whether a later call may succeed."""

    def __init__(
        self, code: str, reason: str, *, is_temporary: bool, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
        self.is_temporary = is_temporary
        self.retry_after = retry_after


class _TryAgain(MainApiError):
    """A fault that often passes within seconds."""


def renderer_for(*, livemode: bool) -> Renderer:
    """Live deeds are the Main API's; test deeds always are the sandbox's."""
    if livemode:
        return Renderer("main_api", settings.MAIN_API_BASE_URL, settings.MAIN_API_INTERNAL_TOKEN)
    return Renderer("sandbox", settings.SANDBOX_BASE_URL, settings.SANDBOX_TOKEN)


def render(renderer: Renderer, call: Call) -> bytes:
    """The bytes of a 200 answer, of at most PDF_MAX_BYTES; whether they are a PDF is not known here.

    Raises MainApiError.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_TryAgain),
        stop=tenacity.stop_after_attempt(settings.MAIN_API_ATTEMPTS),
        wait=_pause,
        reraise=True,
    )
    return retrying(_counted, renderer, call)


def check() -> None:
    """Returns when the Main API's host answers at all. Raises requests' RequestException if not."""
    _session().head(settings.MAIN_API_BASE_URL, timeout=1, allow_redirects=False).close()


def _pause(state: tenacity.RetryCallState) -> float:
    """Seconds: what the answer asked for, else exponential with full jitter above a half."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, MainApiError) and error.retry_after is not None:
        return error.retry_after
    ceiling: float = settings.MAIN_API_RETRY_SECONDS * 2 ** (state.attempt_number - 1)
    return ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret


def _counted(renderer: Renderer, call: Call) -> bytes:
    with order_metrics.one_call(renderer.name):
        return _call_once(renderer, call)


def _call_once(renderer: Renderer, call: Call) -> bytes:
    deadline = time.monotonic() + settings.MAIN_API_READ_TIMEOUT_SECONDS
    try:
        with _session().post(
            f"{renderer.base_url}{call.path}",
            json=call.body,
            headers={
                "Authorization": f"Bearer {renderer.token}",
                "Accept": "application/pdf",
                "X-Request-ID": call.request_id,
                "X-Deed-ID": call.deed_id,
                "X-Order-ID": quote(call.order_id, safe=""),
            },
            timeout=(
                settings.MAIN_API_CONNECT_TIMEOUT_SECONDS,
                settings.MAIN_API_READ_TIMEOUT_SECONDS,
            ),
            # The token must not follow a redirect to another host, and a render never redirects.
            allow_redirects=False,
            stream=True,
        ) as answer:
            if answer.status_code != _OK:
                raise _refusal(answer, deadline)
            return _read(answer, deadline, settings.PDF_MAX_BYTES)
    except requests.exceptions.SSLError as error:
        raise MainApiError("main_api_unavailable", "TLS failed", is_temporary=True) from error
    except requests.exceptions.Timeout as error:
        raise _TryAgain("main_api_timeout", "no answer in time", is_temporary=True) from error
    except requests.exceptions.RequestException as error:
        reason = type(error).__name__
        raise _TryAgain("main_api_unavailable", reason, is_temporary=True) from error


def _read(answer: requests.Response, deadline: float, limit: int) -> bytes:
    """The body. A read timeout bounds each packet only, so the whole is bounded by `deadline`."""
    body = bytearray()
    for chunk in answer.iter_content(_CHUNK):
        body += chunk
        if len(body) > limit:
            reason = f"the answer has more than {limit:,} bytes"
            raise MainApiError("pdf_too_large", reason, is_temporary=False)
        if time.monotonic() > deadline:
            raise _TryAgain("main_api_timeout", "the answer did not end", is_temporary=True)
    return bytes(body)


def _refusal(answer: requests.Response, deadline: float) -> MainApiError:
    status = answer.status_code
    if status == _TOO_MANY:
        asked = _retry_after(answer.headers.get("Retry-After"))
        kind = MainApiError if asked > settings.MAIN_API_RETRY_AFTER_MAX_SECONDS else _TryAgain
        return kind("main_api_busy", "429", is_temporary=True, retry_after=asked)
    if status >= _SERVER_ERROR or status == _REQUEST_TIMEOUT:
        return _TryAgain("main_api_unavailable", f"status {status}", is_temporary=True)
    if status in {401, 403}:
        # Our own token is wrong, which is no fault of the order: it waits until we mended it.
        reason = f"status {status}: our token was refused"
        return MainApiError("main_api_unavailable", reason, is_temporary=True)
    if 300 <= status < 400:  # noqa: PLR2004 - the class of redirects
        reason = f"status {status}: a redirect, which is not followed"
        return MainApiError("main_api_unavailable", reason, is_temporary=True)
    reason = _reason(_read(answer, deadline, _CHUNK))
    return MainApiError("main_api_rejected", reason or f"status {status}", is_temporary=False)


def _reason(body: bytes) -> str:
    """What the `detail` of a 4xx says, as text; empty when it says nothing readable."""
    try:
        detail = json.loads(body)["detail"]
    except (ValueError, KeyError, TypeError):
        return ""
    if isinstance(detail, list):
        detail = "; ".join(
            f"{'.'.join(str(part) for part in one.get('loc', []))}: {one.get('msg', '')}"
            for one in detail
            if isinstance(one, dict)
        )
    return str(detail)[:_LIMIT_REASON]


def _retry_after(value: str | None) -> float:
    """Seconds from a Retry-After header (RFC 9110 section 10.2.3); one when it is unreadable."""
    if value is None:
        return 1.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - timezone.now()).total_seconds())
    except (ValueError, TypeError):
        return 1.0


def _session() -> requests.Session:
    """A session a thread, for its kept-alive connections."""
    session: requests.Session | None = getattr(_local, "session", None)
    if session is None:
        session = requests.Session()
        # No proxy, .netrc or CA bundle of the environment may redirect a call that has our token.
        session.trust_env = False
        session.verify = settings.MAIN_API_CA_BUNDLE or True
        _local.session = session
    return session
