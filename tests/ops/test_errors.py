"""What leaves for Sentry when an order breaks: where it broke and for whom, never what was ordered."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sentry_sdk
import structlog
from django.test import Client
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from deeds import fulfilment, ordering, tasks
from keys.models import Partner
from partner_api.ops import errors
from tests.api import Api
from tests.log_wall import leaks, people

ROOT = Path(__file__).parent.parent.parent


class Kept(Transport):
    """A transport that keeps what would have been sent."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.events += [item.payload.json for item in envelope.items if item.payload.json]


@pytest.fixture
def sent(settings: Any) -> Iterator[list[Any]]:
    settings.SENTRY_DSN = "https://public@sentry.invalid/1"
    transport = Kept()
    errors.start(transport=transport)
    try:
        yield transport.events
    finally:
        sentry_sdk.get_client().close(timeout=0)
        sentry_sdk.init(dsn=None, default_integrations=False)


def break_in(monkeypatch: Any, module: Any, name: str) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        secret = "dp_live_AbCd1234_" + "s" * 43  # noqa: F841 - a local variable that must not travel
        message = f"broke with {args!r} {kwargs!r} {sorted(people())}"
        raise RuntimeError(message)

    monkeypatch.setattr(module, name, broken)


def test_an_order_that_breaks_is_told_without_the_order(
    sent: list[Any], api: Api, order: Any, monkeypatch: Any
) -> None:
    break_in(monkeypatch, ordering, "deed_of")
    answer = api.post("/v2/deeds", order(), X_Request_ID="sentry-1")
    assert answer.status_code == 500
    event = next(event for event in sent if "exception" in event)
    text = json.dumps(sent)
    assert event["exception"]["values"][-1]["type"] == "RuntimeError"
    assert "ordering.py" in text
    assert event["tags"] == {
        "request_id": "sentry-1",
        "partner": str(api.partner.pk),
        "key": api.key.prefix,
    }
    assert event["transaction"] == "/v2/deeds"
    assert leaks(text, also=[api.text, api.text.rpartition("_")[2]]) == []
    for gone in ("vars", "headers", "cookies", "data", "query_string", "breadcrumbs", "extra", "user"):
        assert f'"{gone}"' not in text


def test_a_task_that_breaks_is_told_without_the_deed(
    sent: list[Any], api: Api, order: Any, monkeypatch: Any
) -> None:
    api.post("/v2/deeds", order(), X_Request_ID="sentry-2")
    break_in(monkeypatch, fulfilment, "rendered")
    deed = api.partner.deeds.get()
    with pytest.raises(RuntimeError):
        tasks.serve(str(deed.pk))
    sentry_sdk.capture_exception(RuntimeError(f"task {sorted(people())}"))
    event = sent[-1]
    assert event["tags"] == {
        "request_id": "sentry-2",
        "partner": str(api.partner.pk),
        "deed": str(deed.pk),
        **({"key": api.key.prefix} if "key" in event["tags"] else {}),
    }
    assert leaks(json.dumps(event)) == []


def test_a_logged_error_is_its_name(sent: list[Any], db: None) -> None:
    structlog.get_logger("deeds").error("storage_lost", name="ALICE SMITH", apn="8381-021-001")
    assert sent[-1]["logentry"] == {"message": "storage_lost"}
    assert leaks(json.dumps(sent), also=["ALICE", "8381"]) == []


def test_without_a_dsn_nothing_is_imported_and_nothing_traced() -> None:
    ours = (
        "sentry_sdk",
        "opentelemetry.instrumentation",
        "opentelemetry.exporter",
        "opentelemetry.sdk.trace",
    )
    code = (
        "import django, sys; django.setup();"
        f"print([name for name in sys.modules if name.startswith({ours!r})])"
    )
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "partner_api.settings"}
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert ended.stdout.strip() == "[]"


def test_a_sentry_that_is_away_costs_no_request(
    settings: Any, client: Client, acme: Partner, order: Any, monkeypatch: Any
) -> None:
    """It takes the connection and never answers; the SDK itself would wait for half a minute."""
    break_in(monkeypatch, ordering, "deed_of")
    hanging = socket.create_server(("127.0.0.1", 0))
    settings.SENTRY_DSN = f"http://public@127.0.0.1:{hanging.getsockname()[1]}/1"
    errors.start()
    try:
        started = time.monotonic()
        answers = [Api.of(acme).post("/v2/deeds", order()) for _ in range(5)]
        assert {answer.status_code for answer in answers} == {500}
        assert time.monotonic() - started < 10
    finally:
        hanging.close()
        sentry_sdk.get_client().close(timeout=0)
        sentry_sdk.init(dsn=None, default_integrations=False)
