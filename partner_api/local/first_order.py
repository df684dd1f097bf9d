"""What a partner does first, over public HTTP: order a deed, wait for it, open the link it gives."""

import datetime as dt
import time
from pathlib import Path
from typing import Any, Final

import requests

from partner_api.local.processes import POLL_SECONDS, Failed

_DONE: Final = {"completed", "failed", "cancelled"}
_PATIENCE_SECONDS: Final = 90.0


def place(base_url: str, api_key: str) -> dict[str, Any]:
    """Orders the catalog's example of a grant deed and returns the deed, completed. Raises Failed."""
    session = requests.Session()
    session.trust_env = False
    session.headers["Authorization"] = f"Bearer {api_key}"
    catalog = session.get(f"{base_url}/v2/deed-types/grant", timeout=10)
    order = _json(catalog)["example"]
    order["order_id"] = f"DEMO-{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S-%f}"
    answer = session.post(f"{base_url}/v2/deeds", json=order, headers={"Prefer": "wait=20"}, timeout=40)
    deed = _json(answer)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while deed["status"] not in _DONE and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS * 10)
        deed = _json(session.get(f"{base_url}/v2/deeds/{deed['id']}", timeout=10))
    if deed["status"] != "completed":
        message = f"the first deed is {deed['status']}: {deed['failure'] or deed['timeline']}"
        raise Failed(message)
    return deed


def download(url: str, path: Path) -> int:
    """Saves the PDF behind a signed link, without a key, and returns its bytes. Raises Failed."""
    answer = requests.get(url, timeout=20)
    if answer.status_code != requests.codes.ok or not answer.content.startswith(b"%PDF-"):
        message = f"the link answered {answer.status_code} and no PDF"
        raise Failed(message)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(answer.content)
    return len(answer.content)


def _json(answer: requests.Response) -> dict[str, Any]:
    if not answer.ok:
        message = f"{answer.request.method} {answer.url} answered {answer.status_code}: {answer.text}"
        raise Failed(message)
    body: dict[str, Any] = answer.json()
    return body
