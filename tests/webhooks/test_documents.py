"""What receivers are told works as it is told."""

import datetime as dt
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import requests
from django.core.management import CommandError, call_command
from django.utils import timezone

from deeds.models import Deed
from keys.models import Partner
from tests.webhooks.conftest import Sources
from tests.webhooks.inbound_calls import post
from webhooks import documents, signing, tasks
from webhooks.event_types import EVENT_TYPES
from webhooks.management.commands.webhook_listen import Listener

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "webhooks.md").read_text()
API = (ROOT / "partner_api" / "http" / "api_description.md").read_text()
BODY = '{"name":"Ñ"}'.encode()


def _snippet(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def _cases() -> list[tuple[str, dict[str, str], bytes, bool]]:
    secret, other = signing.new_secret(), signing.new_secret()
    now = timezone.now()
    good = signing.headers_for("evt", now, BODY, [secret])
    both = signing.headers_for("evt", now, BODY, [other, secret])
    old = signing.headers_for("evt", now - dt.timedelta(minutes=6), BODY, [secret])
    return [
        (secret, good, BODY, True),
        (secret, both, BODY, True),
        (secret.removeprefix("whsec_"), good, BODY, True),
        (other, good, BODY, False),
        (secret, good, BODY + b" ", False),
        (secret, good | {"webhook-id": "other"}, BODY, False),
        (secret, good | {"webhook-signature": ""}, BODY, False),
        (secret, good | {"webhook-signature": "v1,zz"}, BODY, False),
        (secret, old, BODY, False),
    ]


def test_the_python_of_the_page_verifies() -> None:
    # Who has the API's documentation and no more has it there too.
    assert f"```python\n{_snippet('python')}```" in API
    space: dict[str, Any] = {}
    exec(_snippet("python"), space)  # noqa: S102 - the page's own code
    for secret, headers, body, expected in _cases():
        assert space["verify"](secret, headers, body) is expected


@pytest.mark.usefixtures("hinted")
def test_an_order_sent_as_the_page_says_becomes_a_deed(source: Sources, acme: Partner) -> None:
    source()
    inbound = PAGE.partition("## Inbound")[2]
    code = re.search(r"```python\n(.*?)```", inbound, re.DOTALL)
    body = re.search(r"```json\n(.*?)```", inbound, re.DOTALL)
    assert code is not None
    assert body is not None
    space: dict[str, Any] = {}
    exec(code[1], space)  # noqa: S102 - the page's own code
    content = body[1].encode()
    assert post(content, space["headers_for"]("secret", content)).status_code == 202
    tasks.process()
    deed = Deed.objects.get()
    assert (deed.partner, deed.status) == (acme, "queued")
    assert deed.order["metadata"] == {"branch": "Pomona"}
    out = StringIO()
    call_command("spectacular", "--format", "openapi-json", stdout=out)
    operation = json.loads(out.getvalue())["paths"]["/v1/webhooks/{system}"]["post"]
    shown = operation["requestBody"]["content"]["*/*"]["examples"]["AnOrder"]["value"]
    assert shown == json.loads(body[1])


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_javascript_of_the_page_verifies() -> None:
    cases = [[secret, headers, body.decode(), expected] for secret, headers, body, expected in _cases()]
    program = _snippet("javascript") + (
        "const cases = JSON.parse(require('node:fs').readFileSync(0));"
        "console.log(JSON.stringify(cases.map(([s, h, b]) => verify(s, h, Buffer.from(b)))));"
    )
    done = subprocess.run(
        ["node", "-e", program], input=json.dumps(cases), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [case[3] for case in cases]


def test_the_catalog_page_is_the_current_one() -> None:
    out = StringIO()
    call_command("event_catalog", stdout=out)
    page = (ROOT / "docs" / "events.md").read_text()
    assert page == out.getvalue(), "run `manage.py event_catalog --file docs/events.md`"
    for name in EVENT_TYPES:
        assert f"## {name}" in page


def test_the_openapi_document_has_each_event_with_an_example() -> None:
    out = StringIO()
    call_command("spectacular", "--format", "openapi-json", stdout=out)
    document = json.loads(out.getvalue())
    assert set(document["webhooks"]) == set(EVENT_TYPES)
    for name, path in document["webhooks"].items():
        content = path["post"]["requestBody"]["content"]["application/json"]
        assert content["example"]["type"] == name
        data = EVENT_TYPES[name].data
        assert data.model_validate_json(json.dumps(content["example"]["data"]))
        assert {parameter["name"] for parameter in path["post"]["parameters"]} == {
            "webhook-id",
            "webhook-timestamp",
            "webhook-signature",
        }


def test_every_type_of_the_contract_is_there() -> None:
    assert set(EVENT_TYPES) == {
        "deed.completed",
        "deed.failed",
        "deed.cancelled",
        "quota.threshold_reached",
        "quota.exceeded",
        "invoice.finalized",
        "invoice.paid",
        "invoice.payment_failed",
        "key.expiring",
        "key.rotated",
        "key.revoked",
        "webhook.endpoint_disabled",
        "webhook.test",
    }
    assert documents.example_of(EVENT_TYPES["deed.completed"])["data"]["order_id"] == "ORD-123"


def test_the_listener_prints_and_verifies() -> None:
    secret, out = signing.new_secret(), StringIO()
    with Listener(0, [secret], status=204, out=out) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/"
            headers = signing.headers_for("evt-1", timezone.now(), BODY, [secret])
            assert requests.post(url, BODY, headers=headers, timeout=5).status_code == 204
            assert requests.post(url, BODY + b"x", headers=headers, timeout=5).status_code == 401
            assert requests.post(url, b"", timeout=5).status_code == 401
        finally:
            server.shutdown()
            thread.join()
    assert "evt-1  verified\n" in out.getvalue()
    assert "evt-1  NOT VERIFIED" in out.getvalue()
    assert '"name": "Ñ"' in out.getvalue()


def test_the_listener_is_a_command(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="whsec_ and base64"):
        call_command("webhook_listen", secret=["%%%"])
    log = tmp_path / "log"
    with log.open("w") as file:
        child = subprocess.Popen(
            [sys.executable, "manage.py", "webhook_listen", "--port", "0", "--secret", signing.new_secret()],
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            ends_at = time.monotonic() + 30
            while "listening on" not in log.read_text() and time.monotonic() < ends_at:
                assert child.poll() is None, log.read_text()
                threading.Event().wait(0.05)
            found = re.search(r"http://127.0.0.1:\d+/", log.read_text())
            assert found is not None
            assert requests.post(found[0], b"{}", timeout=5).status_code == 401
            assert "NOT VERIFIED" in log.read_text()
        finally:
            child.terminate()
            child.wait(10)


def test_the_open_door_is_documented_as_it_answers() -> None:
    out = StringIO()
    call_command("spectacular", "--format", "openapi-json", stdout=out)
    responses = json.loads(out.getvalue())["paths"]["/v1/webhooks/{system}"]["post"]["responses"]
    # A body of any kind is taken: what it means is looked at later.
    assert {"415", "422"}.isdisjoint(responses)
    assert "malformed_json" not in responses["400"]["description"]
    assert "payload_too_large" in responses["413"]["description"]
    assert "WWW-Authenticate" not in responses["401"]["headers"]
