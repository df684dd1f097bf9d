"""A partner's client in tests: sends a key and JSON, and gives back the answer as it came."""

import json
from dataclasses import dataclass
from typing import Any

from django.test import Client

from keys.models import ApiKey, Partner
from keys.scopes import SCOPES


@dataclass
class Api:
    partner: Partner
    key: ApiKey
    text: str

    @classmethod
    def of(cls, partner: Partner, *, environment: str = "live", scopes: list[str] | None = None) -> "Api":
        granted = list(SCOPES) if scopes is None else scopes
        key, text = ApiKey.issue(partner, name="Test", environment=environment, scopes=granted)
        return cls(partner, key, text)

    def get(self, path: str, **headers: str) -> Any:
        return self.send("GET", path, None, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.send("POST", path, body, **headers)

    def patch(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.send("PATCH", path, body, **headers)

    def delete(self, path: str, **headers: str) -> Any:
        return self.send("DELETE", path, None, **headers)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return Client(raise_request_exception=False).generic(
            method,
            path,
            content if body is not None else b"",
            content_type="application/json",
            headers={
                "Authorization": f"Bearer {self.text}",
                **{name.replace("_", "-"): value for name, value in headers.items()},
            },
        )


def errors_of(answer: Any) -> dict[str, str]:
    """Pointer → code of a 422."""
    assert answer.status_code == 422, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    return {error["pointer"]: error["code"] for error in answer.json()["errors"]}
