"""What a twin in a process of its own can be told: faults, the clock, cards, payments; and what it saw."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from partner_api.local.stripe_twin.server import Twin
from partner_api.local.stripe_twin.world import Fault

PREFIX: Final = "/_twin/"


class ControlledApp:
    """The twin's own application, and beside it `/_twin/…` with the same secret key."""

    def __init__(self, twin: Twin) -> None:
        self.twin = twin
        self._acts: dict[str, Callable[[dict[str, Any]], Any]] = {
            "state": self._state,
            "faults": self._faults,
            "advance": self._advance,
            "attach": self._attach,
            "pay": self._pay,
            "events": self._events,
        }

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if not path.startswith(PREFIX):
            return self.twin.app(environ, start_response)
        act = self._acts.get(path.removeprefix(PREFIX))
        is_allowed = environ.get("HTTP_AUTHORIZATION") == f"Bearer {self.twin.world.secret_key}"
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = json.loads(environ["wsgi.input"].read(length) or b"{}") if length else {}
        answer = act(body) if act and is_allowed else None
        content = json.dumps(answer).encode()
        start_response(
            "200 OK" if answer is not None else "404 Not Found",
            [("Content-Type", "application/json"), ("Content-Length", str(len(content)))],
        )
        return [content]

    def _state(self, body: dict[str, Any]) -> dict[str, Any]:
        world, meters = self.twin.world, self.twin.app.meters
        with world.lock:
            sums: dict[str, Counter[str]] = {}
            for (customer, _), lane in meters.accepted.items():
                own = sums.setdefault(customer, Counter())
                for event in lane:
                    own[event.deed_type] += int(event.value)
            return {
                "now": world.now(),
                "violations": world.violations,
                "accepted": sum(len(lane) for lane in meters.accepted.values()),
                "identifiers": len(meters.identifiers),
                "late": len(meters.late),
                "faults": len(world.faults),
                "sums": sums,
                "customers": [customer["id"] for customer in world.all("customer")],
                "period_ends": [
                    subscription["items"]["data"][0]["current_period_end"]
                    for subscription in world.all("subscription")
                    if subscription["status"] == "active"
                ],
                "invoices": [
                    {name: invoice[name] for name in ("id", "status", "number", "total", "customer")}
                    for invoice in world.all("invoice")
                ],
            }

    def _faults(self, body: dict[str, Any]) -> dict[str, Any]:
        self.twin.world.faults = [Fault(**fault) for fault in body["faults"]]
        return {"faults": len(self.twin.world.faults)}

    def _advance(self, body: dict[str, Any]) -> dict[str, Any]:
        self.twin.app.billing.advance(int(body["to"]))
        return {"now": self.twin.world.now()}

    def _attach(self, body: dict[str, Any]) -> dict[str, Any]:
        with self.twin.world.lock:
            customer = self.twin.world.get("customer", body["customer"])
            card = self.twin.app.api.customers.attach(customer, body.get("card", "pm_card_visa"))
            return {"id": card["id"]}

    def _pay(self, body: dict[str, Any]) -> dict[str, Any]:
        with self.twin.world.lock:
            return {
                "status": self.twin.app.billing.pay(self.twin.world.get("invoice", body["invoice"]))["status"]
            }

    def _events(self, body: dict[str, Any]) -> dict[str, Any]:
        """How many events wait for delivery."""
        with self.twin.world.lock:
            return {"waiting": len(self.twin.world.events) + len(self.twin.webhooks.unanswered)}
