"""What gunicorn itself refuses before Django sees it, as a problem and not as HTML.

The reasons that gunicorn would log quote the request, and with it perhaps a key; ours don't.
"""

import json
from typing import Any

import structlog
from gunicorn import util
from gunicorn.http import errors
from gunicorn.workers.gthread import ThreadWorker

log = structlog.get_logger(__name__)

_REFUSALS: tuple[tuple[type[Exception], int, str, str], ...] = (
    (errors.LimitRequestHeaders, 431, "Request Header Fields Too Large", "A header is too long."),
    (errors.LimitRequestLine, 414, "URI Too Long", "The address is too long."),
    (errors.UnsupportedTransferCoding, 501, "Not Implemented", "Send the body plain or chunked."),
    (errors.ParseException, 400, "Bad Request", "This is not HTTP as we read it."),
)


class ProblemWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        for kind, status, title, detail in _REFUSALS:
            if isinstance(exc, kind):
                log.warning("request_refused", status=status, reason=type(exc).__name__)
                _write(client, status, title, detail)
                return
        super().handle_error(req, client, addr, exc)


def _write(client: Any, status: int, title: str, detail: str) -> None:
    body = json.dumps(
        {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": "bad_request"}
    )
    head = (
        f"HTTP/1.1 {status} {title}\r\nConnection: close\r\n"
        f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    util.write_nonblock(client, f"{head}{body}".encode("ascii"))
