"""The only place that speaks to the Main API (and to the sandbox, which is the same to us).

A render is free of side effects there, so a call may be repeated. What may help is repeated here, a
few times within seconds; what may help later is told to the caller; what never will, too.
"""

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote

import requests
import tenacity
from django.conf import settings
from urllib3.exceptions import HTTPError, ReadTimeoutError

from deeds import metrics, retry_after, said
from deeds.said import Said

_CHUNK: Final = 64 * 1024
_TOO_MANY: Final = 429
_REQUEST_TIMEOUT: Final = 408
_SERVER_ERROR: Final = 500
# As long as the longest rest of the circuit: who is overloaded is often back before it thought.
_LONGEST_UNAVAILABLE_SECONDS: Final = 60.0
# Our own token, or the way to the Main API, is wrong: paths and methods are the catalog's, never the order's.
_OURS: Final = {401: "our token was refused", 403: "our token was refused"} | dict.fromkeys(
    (404, 405, 421), "there is no such call"
)
_OK: Final = 200
_NOTHING: Final = Said()
_local = threading.local()


@dataclass(frozen=True)
class Renderer:
    """Where deeds of one mode are rendered."""

    name: str
    base_url: str
    token: str
    # Faults are ordered there, one order at a time; an answer of it says nothing about the others.
    is_sandbox: bool


@dataclass(frozen=True)
class Call:
    """One deed to render. The ids go along as headers; the Main API's log can be joined by them."""

    path: str
    body: dict[str, Any]
    request_id: str
    partner_id: str
    deed_id: str
    order_id: str


@dataclass(frozen=True)
class Rendering:
    content: bytes
    said: Said


class MainApiError(Exception):
    """No PDF. `code` is one of ours, `is_temporary` whether a later call may succeed.

    `is_outage` says that other orders would fare no better now. `detail` is the answer's own, parsed.
    """

    def __init__(
        self,
        code: str,
        reason: str,
        *,
        is_temporary: bool,
        is_outage: bool = False,
        retry_after: float | None = None,
        said: Said = _NOTHING,
        detail: Any = None,
    ) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
        self.is_temporary = is_temporary
        self.is_outage = is_outage
        self.retry_after = retry_after
        self.said = said
        self.detail = detail


class Unreachable(Exception):
    """The host does not answer."""


class _TryAgain(MainApiError):
    """A fault that often passes within seconds."""


def renderer_for(*, livemode: bool) -> Renderer:
    """Live deeds are the Main API's; test deeds always are the sandbox's."""
    if livemode:
        return Renderer(
            "main_api", settings.MAIN_API_BASE_URL, settings.MAIN_API_INTERNAL_TOKEN, is_sandbox=False
        )
    return Renderer("sandbox", settings.SANDBOX_BASE_URL, settings.SANDBOX_TOKEN, is_sandbox=True)


def render(renderer: Renderer, call: Call, *, attempts: int | None = None) -> Rendering:
    """The bytes of a 200 answer, of at most PDF_MAX_BYTES; whether they are a PDF is not known here.

    `attempts` is MAIN_API_ATTEMPTS unless given. Raises MainApiError.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_TryAgain),
        stop=tenacity.stop_after_attempt(attempts or settings.MAIN_API_ATTEMPTS),
        wait=_pause,
        reraise=True,
    )
    try:
        rendering: Rendering = retrying(_counted, renderer, call)
    except MainApiError as error:
        error.said = replace(error.said, calls=retrying.statistics["attempt_number"])
        raise
    return replace(rendering, said=replace(rendering.said, calls=retrying.statistics["attempt_number"]))


def look() -> None:
    """Returns when the Main API's host answers at all. Raises Unreachable if not."""
    try:
        _session().head(settings.MAIN_API_BASE_URL, timeout=0.7, allow_redirects=False).close()
    except requests.exceptions.RequestException as error:
        raise Unreachable from error


def _pause(state: tenacity.RetryCallState) -> float:
    """Seconds: what the answer asked for, else exponential with full jitter above a half."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, MainApiError) and error.retry_after is not None:
        return error.retry_after
    ceiling: float = settings.MAIN_API_RETRY_SECONDS * 2 ** (state.attempt_number - 1)
    return ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret


def _counted(renderer: Renderer, call: Call) -> Rendering:
    with metrics.one_call(renderer.name):
        return _call_once(renderer, call)


def _call_once(renderer: Renderer, call: Call) -> Rendering:
    deadline = time.monotonic() + settings.MAIN_API_READ_TIMEOUT_SECONDS
    try:
        with _session().post(
            f"{renderer.base_url}{call.path}",
            json=call.body,
            headers={
                "Authorization": f"Bearer {renderer.token}",
                "Accept": "application/pdf",
                "X-Request-ID": call.request_id,
                "X-Partner-ID": call.partner_id,
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
                raise _refusal(renderer, answer, deadline)
            return Rendering(_read(renderer, answer, deadline, settings.PDF_MAX_BYTES), Said.by(answer))
    except requests.exceptions.SSLError as error:
        raise MainApiError("main_api_unavailable", "TLS failed", is_temporary=True, is_outage=True) from error
    except requests.exceptions.Timeout as error:
        is_outage = isinstance(error, requests.exceptions.ConnectTimeout) or not renderer.is_sandbox
        raise _TryAgain(
            "main_api_timeout", "no answer in time", is_temporary=True, is_outage=is_outage
        ) from error
    except requests.exceptions.RequestException as error:
        reason = type(error).__name__
        raise _TryAgain("main_api_unavailable", reason, is_temporary=True, is_outage=True) from error


def _read(renderer: Renderer, answer: requests.Response, deadline: float, limit: int) -> bytes:
    """The body of a PDF. Raises MainApiError for one of more than `limit` bytes."""
    body = b"".join(_parts(renderer, answer, deadline, at_most=limit + 1))
    if len(body) > limit:
        reason = f"the answer has more than {limit:,} bytes"
        raise MainApiError("pdf_too_large", reason, is_temporary=False, said=Said.by(answer))
    return body


def _parts(
    renderer: Renderer, answer: requests.Response, deadline: float, *, at_most: int
) -> Iterator[bytes]:
    """The body as it arrives, cut off after `at_most` bytes.

    A read timeout bounds each packet only. So each packet is looked at, that the whole ends by `deadline`, or
    a read timeout later.
    """
    known: dict[str, Any] = {"is_temporary": True, "said": Said.by(answer)}
    left = at_most
    try:
        while left > 0 and (part := answer.raw.read1(min(left, _CHUNK), decode_content=True)):
            yield part
            left -= len(part)
            if time.monotonic() > deadline:
                reason = "the answer did not end"
                raise _TryAgain("main_api_timeout", reason, is_outage=not renderer.is_sandbox, **known)
    except ReadTimeoutError as error:
        reason = "the answer did not go on"
        raise _TryAgain("main_api_timeout", reason, is_outage=not renderer.is_sandbox, **known) from error
    except HTTPError as error:
        raise _TryAgain("main_api_unavailable", type(error).__name__, is_outage=True, **known) from error


def _refusal(renderer: Renderer, answer: requests.Response, deadline: float) -> MainApiError:
    status = answer.status_code
    known: dict[str, Any] = {"said": Said.by(answer)}
    outage = {**known, "is_temporary": True, "is_outage": not renderer.is_sandbox}
    header = answer.headers.get("Retry-After")
    if status == _TOO_MANY:
        return _busy("main_api_busy", status, retry_after.seconds(header), outage)
    if status >= _SERVER_ERROR and header is not None:
        asked = min(retry_after.seconds(header), _LONGEST_UNAVAILABLE_SECONDS)
        return _busy("main_api_unavailable", status, asked, outage)
    if status >= _SERVER_ERROR or status == _REQUEST_TIMEOUT:
        return _TryAgain("main_api_unavailable", f"status {status}", **outage)
    if status in _OURS:
        # No fault of the order: it waits until we mended it.
        return MainApiError("main_api_unavailable", f"status {status}: {_OURS[status]}", **outage)
    if 300 <= status < 400:  # noqa: PLR2004 - the class of redirects
        reason = f"status {status}: a redirect, which is not followed"
        return MainApiError("main_api_unavailable", reason, **outage)
    if status < 300:  # noqa: PLR2004 - a success, but not the one with a deed
        return MainApiError("invalid_pdf", f"status {status}: no PDF", is_temporary=True, **known)
    detail = said.detail(b"".join(_parts(renderer, answer, deadline, at_most=_CHUNK)))
    reason = said.as_text(detail) or f"status {status}"
    return MainApiError("main_api_rejected", reason, is_temporary=False, detail=detail, **known)


def _busy(code: str, status: int, asked: float, outage: dict[str, Any]) -> MainApiError:
    """It says for how many seconds: a short time is waited for here."""
    kind = MainApiError if asked > settings.MAIN_API_RETRY_AFTER_MAX_SECONDS else _TryAgain
    return kind(code, f"status {status}", retry_after=asked, **outage)


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
