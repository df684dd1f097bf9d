"""The stand-in as a plain WSGI application: who may call, what is refused, what is drawn."""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import unquote

import structlog

from deeds.sandbox.drawing import draw
from deeds.sandbox.facts import PATHS, refusals, wrong_types
from deeds.sandbox.faults import Countdown, Fault, fault_of

_MAX_BYTES: Final = 2 * 1024 * 1024
_LONGEST_SLOW_SECONDS: Final = 30
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    503: "Service Unavailable",
}

Environ = dict[str, Any]
Answer = tuple[int, dict[str, str], bytes]
log = structlog.get_logger(__name__)


class SandboxApp:
    """`render_seconds` is the least time a render takes; `pause` waits, and is replaced in tests."""

    def __init__(
        self,
        token: str,
        *,
        render_seconds: float = 0.0,
        timeout_seconds: float = 120.0,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self.token = token
        self.render_seconds = render_seconds
        self.timeout_seconds = timeout_seconds
        self.pause = pause or threading.Event().wait
        self.countdown = Countdown()

    def __call__(
        self, environ: Environ, start_response: Callable[[str, list[tuple[str, str]]], object]
    ) -> Iterable[bytes]:
        started = time.monotonic()
        request_id = environ.get("HTTP_X_REQUEST_ID") or uuid.uuid4().hex
        status, headers, content = self._answer(environ, started)
        headers |= {"X-Request-ID": request_id, "Content-Length": str(len(content))}
        log.info(
            "sandbox_request",
            request_id=request_id,
            partner=environ.get("HTTP_X_PARTNER_ID", ""),
            deed=environ.get("HTTP_X_DEED_ID", ""),
            method=environ["REQUEST_METHOD"],
            path=environ["PATH_INFO"],
            status=status,
            latency_ms=round((time.monotonic() - started) * 1000),
        )
        start_response(f"{status} {_REASONS[status]}", list(headers.items()))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [content]

    def _answer(self, environ: Environ, started: float) -> Answer:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if path == "/healthz":
            return _json(200, {"status": "ok"})
        if path not in PATHS:
            return _detail(404, "Not Found")
        if method != "POST":
            return _detail(405, "Method Not Allowed", {"Allow": "POST"})
        refused = self._refused_credentials(environ)
        if refused is not None:
            return refused
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length > _MAX_BYTES:
            return _detail(413, "Request body too large")
        try:
            body = json.loads(environ["wsgi.input"].read(length))
        except ValueError:
            wrong = {"loc": ["body", 0], "msg": "JSON decode error", "type": "json_invalid"}
            return _detail(422, [wrong])
        wrong_ones = wrong_types(body)
        if wrong_ones:
            return _detail(422, wrong_ones)
        order_id = _order_id(environ, body)
        fault = fault_of(order_id)
        deed = (environ.get("HTTP_X_DEED_ID", ""), order_id)
        early = fault and self._early(fault, deed)
        if early:
            return early
        reasons = refusals(PATHS[path], body)
        if reasons:
            return _detail(400, f"Validation failed: {'; '.join(reasons)}")
        return self._rendered(PATHS[path], body, fault, started)

    def _refused_credentials(self, environ: Environ) -> Answer | None:
        scheme, _, offered = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "bearer" or not offered:
            return _detail(401, "Not authenticated")
        if offered != self.token:
            return _detail(401, "Could not validate credentials")
        return None

    def _early(self, fault: Fault, deed: tuple[str, str]) -> Answer | None:
        """The answer of a fault that comes instead of a render, or None after a pause."""
        match fault.kind:
            case "503" if self.countdown.is_due(deed, fault.number):
                return _detail(503, "Service temporarily unavailable")
            case "429" if self.countdown.is_due(deed, fault.number):
                return _detail(429, "Too many requests", {"Retry-After": "1"})
            case "400":
                return _detail(400, "Validation failed: Grantor information is required")
            case "html":
                page = b"<html><body><h1>Welcome</h1></body></html>"
                return 200, {"Content-Type": "text/html; charset=utf-8"}, page
            case "slow":
                self.pause(min(fault.number, _LONGEST_SLOW_SECONDS))
            case "timeout":
                self.pause(self.timeout_seconds)
        return None

    def _rendered(self, title: str, body: dict[str, Any], fault: Fault | None, started: float) -> Answer:
        content = draw(title, body)
        left = self.render_seconds - (time.monotonic() - started)
        if left > 0:
            self.pause(left)
        if fault is not None and fault.kind == "truncated":
            content = content[: len(content) // 2]
        taken = f"{time.monotonic() - started:.3f}"
        return 200, {"Content-Type": "application/pdf", "X-Generation-Time": taken}, content


def _order_id(environ: Environ, body: dict[str, Any]) -> str:
    """The portal sends it as a header; a caller without one can use a number of the deed's own."""
    header = environ.get("HTTP_X_ORDER_ID")
    if header is not None:
        return unquote(header)
    return next(
        (
            str(body[name])
            for name in ("title_order_no", "escrow_no")
            if str(body.get(name) or "").startswith("sandbox-")
        ),
        "",
    )


def _detail(status: int, detail: Any, headers: dict[str, str] | None = None) -> Answer:
    return _json(status, {"detail": detail}, headers)


def _json(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Answer:
    return (
        status,
        {"Content-Type": "application/json", **(headers or {})},
        json.dumps(body).encode(),
    )
