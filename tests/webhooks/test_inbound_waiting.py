"""Events that become no deed by themselves: they wait for staff, who correct, replay or compare them."""

import datetime as dt
import json
from typing import Any

import pytest
from django.utils import timezone

from deeds.models import Deed
from keys.models import Partner
from partner_api.ops.health import own_connection
from tests.webhooks.conftest import Sources
from tests.webhooks.inbound_calls import FIRST, post, send, sign
from webhooks import hints, inbound, shadow, tasks
from webhooks.models import InboundEvent

pytestmark = pytest.mark.usefixtures("hinted", "clock")


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        (b"{", 422, "malformed_json", None),
        (b"", 422, "malformed_json", None),
        (b'{"a": 1, "a": 2}', 422, "malformed_json", None),
        (b"\xff", 422, "malformed_json", None),
        (b"[]", 422, "validation_error", ""),
        (b"{}", 422, "validation_error", "/deed_type"),
        (json.dumps(FIRST | {"deed_type": "lease"}).encode(), 422, "validation_error", "/deed_type"),
        (json.dumps(FIRST | {"metadata": 1}).encode(), 422, "validation_error", "/metadata"),
        (json.dumps(FIRST | {"surprise": 1}).encode(), 422, "validation_error", "/data/surprise"),
        (json.dumps(FIRST | {"parties": {}}).encode(), 422, "validation_error", "/parties/grantor"),
    ],
)
def test_what_can_be_no_order_waits_for_staff_with_its_reason(
    source: Sources, body: bytes, status: int, code: str, pointer: str | None
) -> None:
    source()
    assert post(body, sign(body)).status_code == 202
    tasks.process()
    stored = InboundEvent.objects.get()
    assert (stored.status, stored.result_status, stored.reason_code) == ("needs_attention", status, code)
    assert stored.reason
    assert bytes(stored.body) == body
    assert [error["pointer"] for error in stored.errors][:1] == ([] if pointer is None else [pointer])
    assert not Deed.objects.exists()


def test_an_order_that_conflicts_waits_for_staff(source: Sources) -> None:
    source()
    send()
    send({**FIRST, "property_address": "Elsewhere"})
    tasks.process()
    second = InboundEvent.objects.order_by("-id")[0]
    assert (second.status, second.reason_code, second.result_status) == (
        "needs_attention",
        "order_conflict",
        409,
    )
    assert Deed.objects.count() == 1


def test_corrected_and_replayed_it_becomes_its_deed(source: Sources) -> None:
    source()
    send({**FIRST, "deed_type": "lease"})
    tasks.process()
    stored = InboundEvent.objects.get()
    assert stored.replay(corrected_body=json.dumps(FIRST))
    assert not stored.replay(corrected_body="{}")
    tasks.process()
    stored.refresh_from_db()
    assert (stored.status, stored.reason_code, stored.deed) == ("processed", "", Deed.objects.get())
    assert json.loads(bytes(stored.body))["deed_type"] == "lease"


def test_a_worker_that_dies_before_the_order_loses_nothing(source: Sources, clock: Any) -> None:
    source()
    send()
    stored = InboundEvent.objects.get()
    assert stored.claim(now=timezone.now())
    tasks.sweep()
    assert not Deed.objects.exists()
    clock.shift(dt.timedelta(seconds=91))
    tasks.sweep()
    # The one that was thought dead goes on: its order is undone with its lease.
    inbound.process(stored)
    assert Deed.objects.count() == 1
    assert InboundEvent.objects.get().status == "processed"


def test_a_flood_does_not_keep_its_worker(
    source: Sources, settings: Any, hinted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The hint of the one that accepts comes from a thread.
    monkeypatch.setattr(hints, "hint_soon", lambda task: None)
    settings.WEBHOOKS_PROCESS_SECONDS = 0
    source()
    send()
    tasks.process()
    assert (Deed.objects.count(), hinted) == (0, ["webhooks.tasks.process"])
    settings.WEBHOOKS_PROCESS_SECONDS = 5
    tasks.process()
    assert (Deed.objects.count(), hinted) == (1, ["webhooks.tasks.process"])


def test_one_worker_at_a_time_makes_orders(source: Sources) -> None:
    source()
    send()
    with own_connection() as other:
        other.execute("SELECT pg_advisory_lock(%s, 0)", [inbound._WORK])
        assert inbound.process_waiting() == 0
        other.execute("SELECT pg_advisory_unlock(%s, 0)", [inbound._WORK])
    assert inbound.process_waiting() == 1


def test_sources_take_turns(source: Sources, acme: Partner) -> None:
    source()
    for number in range(3):
        send({**FIRST, "order_id": f"MANY-{number}"}, X_Webhook_Id=f"many-{number}")
    other = source(partner=Partner.objects.create(name="Pacific Escrow"), secret="another secret")
    body = json.dumps({**FIRST, "order_id": "ONE"}).encode()
    post(body, sign(body, secret="another secret"))
    tasks.process()
    orders = list(Deed.objects.order_by("created_at").values_list("order_id", flat=True))
    assert orders == ["MANY-0", "ONE", "MANY-1", "MANY-2"]
    assert other.events.count() == 1


def test_an_event_that_ends_its_worker_again_and_again_waits_for_staff(source: Sources) -> None:
    source()
    send()
    InboundEvent.objects.update(attempts=5)
    tasks.process()
    assert InboundEvent.objects.get().reason_code == "internal_error"


def test_a_shadow_replay_shows_the_difference_and_does_nothing(source: Sources) -> None:
    source()
    send()
    tasks.process()
    stored = InboundEvent.objects.get()
    assert shadow.run(stored).difference == []
    deed = Deed.objects.get()
    Deed.objects.update(order=deed.order | {"vesting": "as tenants in common"})
    difference = shadow.run(InboundEvent.objects.get()).difference
    assert '-  "vesting": "as tenants in common"' in difference
    assert '+  "vesting": "a single man"' in difference
    assert (Deed.objects.count(), InboundEvent.objects.get().status) == (1, "processed")


def test_a_shadow_replay_of_what_is_refused_says_why(source: Sources) -> None:
    source()
    send({**FIRST, "deed_type": "lease"})
    tasks.process()
    found = shadow.run(InboundEvent.objects.get())
    assert (found.order, found.errors[0]["code"]) == (None, "unknown_deed_type")
