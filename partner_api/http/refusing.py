"""What gunicorn refuses itself, before there is a request for Django: as a problem, and not as HTML.

The reasons that gunicorn would log quote the request, and with it perhaps a key; ours don't.
"""

import contextlib
import http
import json
from typing import Any, Final

import structlog
from gunicorn import util
from gunicorn.http import errors

log = structlog.get_logger(__name__)

_REFUSALS: Final[tuple[tuple[type[Exception], str, str], ...]] = (
    # Subclasses first: a header that we would have sent is no fault of the client's.
    (errors.InvalidResponseHeader, "internal_error", "The error was logged under this request id."),
    (errors.InvalidResponseHeaderName, "internal_error", "The error was logged under this request id."),
    (errors.LimitRequestHeaders, "headers_too_large", "A header is too long, or there are too many."),
    (errors.LimitRequestLine, "uri_too_long", "The address is too long."),
    (TimeoutError, "request_timeout", "The request did not all come in time."),
    (errors.ParseException, "bad_request", "This is not HTTP as we read it."),
)


def refuse(client: Any, exc: Exception) -> None:
    """Tells a client why its connection is closed, as far as it reads that without delay."""
    for kind, code, detail in _REFUSALS:
        if isinstance(exc, kind):
            request_id = _write(client, code, detail)
            log.warning("request_refused", code=code, reason=type(exc).__name__, request_id=request_id)
            return
    request_id = _write(client, "internal_error", "The error was logged under this request id.")
    log.error("request_broke", exc_info=exc, request_id=request_id)


def _write(client: Any, code: str, detail: str) -> str:
    """Sends the problem; the request id that was made for it."""
    from partner_api.http import request_id  # noqa: PLC0415 - it needs the settings
    from partner_api.http.problems import CONTENT_TYPE, Problem  # noqa: PLC0415 - as above

    problem = Problem(code, detail)
    made = request_id.accept_or_make("")
    body = json.dumps(problem.as_dict(made)).encode()
    head = (
        f"HTTP/1.1 {problem.status} {http.HTTPStatus(problem.status).phrase}\r\nConnection: close\r\n"
        f"{request_id.HEADER}: {made}\r\n"
        f"Content-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with contextlib.suppress(OSError):
        util.write_nonblock(client, head.encode("ascii") + body)
    return made
