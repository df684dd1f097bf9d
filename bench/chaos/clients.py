"""Partners' programs: each sends its orders and, as the documents say, sends one again until answered."""

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import requests

from bench.chaos.plan import Order

_ACCEPTED: Final = {200, 201, 202}
_AGAIN: Final = {409, 429}
_SERVER_ERROR: Final = 500
_NOT_FOUND: Final = 404


@dataclass
class Record:
    """What the clients saw: the deed by its order's number, and the request id of every answer."""

    deeds: dict[int, str] = field(default_factory=dict)
    request_ids: list[str] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    bare_errors: list[str] = field(default_factory=list)
    given_up: list[int] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, answer: requests.Response) -> None:
        """Counts an answer; a server error has to explain itself."""
        with self.lock:
            self.statuses[f"{answer.request.method} {answer.status_code}"] += 1
            self.request_ids.append(answer.headers.get("X-Request-ID", ""))
            is_problem = answer.headers.get("Content-Type", "") == "application/problem+json"
            if answer.status_code >= _SERVER_ERROR and not (is_problem and "code" in answer.json()):
                self.bare_errors.append(f"{answer.status_code} {answer.text[:200]!r}")

    def note_cut(self, method: str) -> None:
        with self.lock:
            self.statuses[f"{method} cut"] += 1


class Client:
    """Sends at its own pace: `pause` seconds on average between two orders."""

    def __init__(self, url: str, key: str, record: Record, *, seed: str, pause: float) -> None:
        self.url = url
        self.record = record
        self.pause = pause
        self.chance = random.Random(seed)
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bearer {key}"

    def run(self, orders: list[Order], *, deadline: float) -> None:
        for order in orders:
            time.sleep(self.pause * self.chance.uniform(0.5, 1.5))
            deed_id = self._place(order, deadline)
            if deed_id is None:
                continue
            with self.record.lock:
                self.record.deeds[order.number] = deed_id
            if self.chance.random() < 0.3:
                self._read(deed_id)
        self.session.close()

    def _place(self, order: Order, deadline: float) -> str | None:
        headers = {"Idempotency-Key": order.idempotency_key} if order.idempotency_key else {}
        while time.monotonic() < deadline:
            answer = self._send("POST", "/v2/deeds", json=order.body, headers=headers)
            if answer is not None:
                if answer.status_code in _ACCEPTED:
                    return str(answer.json()["id"])
                is_conflict = answer.status_code == 409 and "order_conflict" in answer.text
                if is_conflict or (answer.status_code < _SERVER_ERROR and answer.status_code not in _AGAIN):
                    with self.record.lock:
                        self.record.refused.append(f"order {order.number}: {answer.text[:300]}")
                    return None
            time.sleep(self.chance.uniform(0.2, 0.8))
        with self.record.lock:
            self.record.given_up.append(order.number)
        return None

    def _read(self, deed_id: str) -> None:
        answer = self._send("GET", f"/v2/deeds/{deed_id}")
        if answer is not None and answer.status_code == _NOT_FOUND:
            with self.record.lock:
                self.record.vanished.append(deed_id)

    def _send(self, method: str, path: str, **request: object) -> requests.Response | None:
        """None when the connection was refused or cut: the answer is unknown then."""
        try:
            answer = self.session.request(method, f"{self.url}{path}", timeout=10, **request)  # type: ignore[arg-type]  # passed on
        except requests.RequestException:
            self.record.note_cut(method)
            return None
        self.record.note(answer)
        return answer
