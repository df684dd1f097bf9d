"""The twin as a WSGI application: who may call, idempotency keys, rate limits and the faults asked for."""

import json
import random
import time
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import unquote

from partner_api.local.stripe_twin import forms
from partner_api.local.stripe_twin.api import Api
from partner_api.local.stripe_twin.invoicing import Billing
from partner_api.local.stripe_twin.metering import Meters, Window
from partner_api.local.stripe_twin.world import Fault, Refusal, World

Environ = dict[str, Any]
Answer = tuple[int, dict[str, str], bytes]
_KEPT_SECONDS: Final = 24 * 3600
# What Stripe refused once it had begun is kept too; what it was too busy for is not.
_KEPT_REFUSALS: Final = frozenset({400, 402, 404})
_SERVER_ERROR: Final = {"error": {"type": "api_error", "message": "An error occurred with our service."}}
METER_EVENTS: Final = "/v1/billing/meter_events"


class Dropped(Exception):
    """The connection ends without an answer."""


class TwinApp:
    def __init__(self, world: World) -> None:
        self.world = world
        self.meters = Meters(world)
        self.billing = Billing(world, self.meters)
        self.api = Api(world, self.meters, self.billing)
        self._kept: dict[str, tuple[str, float, Answer]] = {}
        self._running: set[str] = set()
        self._window = Window()
        self._random = random.Random(6)  # noqa: S311 - faults that happen the same way each time

    def __call__(
        self, environ: Environ, start_response: Callable[[str, list[tuple[str, str]]], object]
    ) -> Iterable[bytes]:
        status, headers, content = self._answer(environ)
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
        start_response(f"{status} {'OK' if status == 200 else 'Error'}", list(headers.items()))  # noqa: PLR2004 - of the two words one must stand there
        return [content]

    def _answer(self, environ: Environ) -> Answer:
        method, path = environ["REQUEST_METHOD"], unquote(environ["PATH_INFO"])
        with self.world.lock:
            self.world.calls[f"{method} {path}" if method == "POST" else method] += 1
        try:
            self._admit(environ, path)
            length = int(environ.get("CONTENT_LENGTH") or 0)
            text = environ["wsgi.input"].read(length).decode() if length else environ.get("QUERY_STRING", "")
            fault = self._fault(method, path)
            if fault:
                self._before(fault)
            answer = self._once(environ, method, path, text, fault)
        except Refusal as refusal:
            return self._refused(refusal)
        if fault:
            self._after(fault)
        return answer

    def _admit(self, environ: Environ, path: str) -> None:
        if environ.get("HTTP_AUTHORIZATION") != f"Bearer {self.world.secret_key}":
            raise Refusal(401, "Invalid API Key provided")
        if not environ.get("HTTP_STRIPE_VERSION"):
            self.world.violate("no_version")
        if path != METER_EVENTS and self._window.is_over(self.world.per_second_other):
            self.world.violate("calls_per_second")
            raise Refusal(429, "Too many requests", kind="rate_limit_error", code="rate_limit")

    def _before(self, fault: Fault) -> None:
        match fault.kind:
            case "outage":
                raise Dropped
            case "slow":
                time.sleep(fault.seconds)
            case "429":
                raise Refusal(429, "Too many requests", kind="rate_limit_error", code="rate_limit")

    def _after(self, fault: Fault) -> None:
        match fault.kind:
            case "lost":
                raise Dropped
            case "late":
                time.sleep(fault.seconds)

    def _once(self, environ: Environ, method: str, path: str, text: str, fault: Fault | None) -> Answer:
        """The first answer again for an idempotency key that was used, unless it asks for another thing."""
        key = environ.get("HTTP_IDEMPOTENCY_KEY")
        if method != "POST" or not key:
            return self._do(method, path, text, fault)
        question = f"{path}?{text}"
        with self.world.lock:
            kept = self._kept.get(key)
            if kept and self.world.now() - kept[1] < _KEPT_SECONDS:
                if kept[0] != question:
                    self.world.violate("idempotency_key_reused")
                    message = "Keys for idempotent requests can only be used with the same parameters."
                    raise Refusal(400, message, kind="idempotency_error")
                status, headers, content = kept[2]
                return status, headers | {"Idempotent-Replayed": "true"}, content
            if key in self._running:
                raise Refusal(409, "Another request with this key runs", kind="idempotency_error")
            self._running.add(key)
        try:
            answer = self._do(method, path, text, fault)
        except Refusal as refusal:
            if refusal.status not in _KEPT_REFUSALS:
                raise
            answer = self._refused(refusal)
        finally:
            with self.world.lock:
                self._running.discard(key)
        with self.world.lock:
            self._kept[key] = (question, self.world.now(), answer)
        return answer

    def _do(self, method: str, path: str, text: str, fault: Fault | None) -> Answer:
        if fault and fault.kind == "500":
            return self._server_error()
        params = forms.decode(text)
        if path == METER_EVENTS:
            # It has a lock for each customer and meter, and may take its time.
            made = self.api.call(method, path, params)
            content = json.dumps(made).encode()
        else:
            with self.world.lock:
                content = json.dumps(self.api.call(method, path, params)).encode()
        if fault and fault.kind == "500_after":
            return self._server_error()
        return 200, self._headers(), content

    def _refused(self, refusal: Refusal) -> Answer:
        return refusal.status, self._headers() | refusal.headers, json.dumps(refusal.body).encode()

    def _server_error(self) -> Answer:
        """Kept under the idempotency key like any answer: the same call gets this 500 again."""
        return 500, self._headers(), json.dumps(_SERVER_ERROR).encode()

    def _headers(self) -> dict[str, str]:
        return {"Request-Id": f"req_{self._random.getrandbits(48):012x}"}

    def _fault(self, method: str, path: str) -> Fault | None:
        if not self.world.faults:
            return None
        with self.world.lock:
            for fault in self.world.faults:
                if fault.path in path and fault.method in method and self._random.random() < fault.chance:
                    fault.times -= 1
                    if fault.times <= 0:
                        self.world.faults.remove(fault)
                    return fault
        return None
