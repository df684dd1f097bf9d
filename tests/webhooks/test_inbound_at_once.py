"""One signed event many times at once, against real processes: it is stored, made and charged once."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import requests
from django.utils import timezone

from billing.models import LedgerEntry
from deeds.models import Deed
from tests.e2e.conftest import Deployment, deployment  # noqa: F401 - a fixture
from tests.webhooks.inbound_calls import FIRST, sign
from webhooks.models import InboundEvent, Source

Sources = Callable[..., Source]
TIMES = 100
PATIENCE_SECONDS = 90


def test_a_hundred_times_at_once_is_one_deed_and_one_charge(
    deployment: Deployment,  # noqa: F811 - the fixture
    source: Sources,
) -> None:
    deployment.start_sandbox()
    deployment.start_worker()
    deployment.start_web(WEB_WORKERS="2")
    source()
    body = json.dumps(FIRST).encode()
    headers = {**sign(body, at=timezone.now()), "X-Webhook-Id": "evt-1", "Content-Type": "application/json"}

    def send(_: int) -> requests.Response:
        return requests.post(f"{deployment.url}/v1/webhooks/softpro", body, headers=headers, timeout=60)

    with ThreadPoolExecutor(TIMES) as pool:
        answers = list(pool.map(send, range(TIMES)))
    # While the deed is made, and after it, the event is still the same one.
    _until_completed()
    answers.append(send(0))

    assert sorted(answer.status_code for answer in answers) == [200] * TIMES + [202]
    assert len({answer.text for answer in answers}) == 1
    assert [answer.headers.get("Idempotent-Replayed") for answer in answers if answer.status_code == 202] == [
        None
    ]
    event = InboundEvent.objects.get()
    assert answers[0].json()["id"] == str(event.pk)
    deed = Deed.objects.get()
    assert (event.status, event.deed_id) == ("processed", deed.pk)
    charged = LedgerEntry.objects.get()
    assert (charged.kind, charged.source_id) == ("deed", str(deed.pk))
    assert [path.stem for path in (deployment.folder / "storage").rglob("*.pdf")] == [str(deed.pk)]


def _until_completed() -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not Deed.objects.filter(status="completed").exists():
        assert time.monotonic() < deadline, "the deed was not made"
        _pause(0.2)


def _pause(seconds: float) -> None:
    InboundEvent.objects.raw("SELECT pg_sleep(%s), id FROM webhook_inbound_events LIMIT 1", [seconds])[0]
