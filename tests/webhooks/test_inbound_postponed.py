"""Events whose order is refused for now: they wait by themselves, and a person is called only in the end."""

import datetime as dt
from typing import Any

import pytest
from django.utils import timezone

from billing.models import Invoice
from deeds import backlog
from deeds.models import Deed
from keys.models import Partner
from tests.webhooks.conftest import Sources
from tests.webhooks.inbound_calls import FIRST, send
from webhooks import tasks
from webhooks.models import InboundEvent

pytestmark = pytest.mark.usefixtures("hinted", "clock")


def _send(*order_ids: str) -> None:
    for order_id in order_ids:
        assert send({**FIRST, "order_id": order_id}).status_code == 202


def _waiting() -> list[tuple[str, str]]:
    waiting = InboundEvent.objects.filter(status="received")
    return list(waiting.order_by("id").values_list("status", "waits_for"))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is queued is counted anew for each order."""
    monkeypatch.setattr(backlog, "COUNT_EVERY_SECONDS", -1.0)


@pytest.mark.usefixtures("at_once")
def test_an_order_waits_for_room_in_the_queue(source: Sources, clock: Any, settings: Any) -> None:
    source()
    settings.DEED_MAX_QUEUED_PER_PARTNER = 1
    _send("A", "B", "C")
    tasks.process()
    assert [deed.order_id for deed in Deed.objects.all()] == ["A"]
    assert _waiting() == [("received", "queue_full")] * 2
    settings.DEED_MAX_QUEUED_PER_PARTNER = 3
    tasks.process()
    assert Deed.objects.count() == 1, "not before its time"
    clock.shift(dt.timedelta(seconds=31))
    tasks.process()
    assert [deed.order_id for deed in Deed.objects.order_by("id")] == ["A", "B", "C"]
    assert set(InboundEvent.objects.values_list("status", "waits_for", "not_before")) == {
        ("processed", "", None)
    }


@pytest.mark.usefixtures("at_once")
def test_waiting_is_no_crash(source: Sources, clock: Any, settings: Any) -> None:
    source()
    settings.DEED_MAX_QUEUED_PER_PARTNER = 0
    _send("A")
    for _ in range(settings.DEED_MAX_CRASHES + 3):
        tasks.process()
        clock.shift(dt.timedelta(seconds=31))
    settings.DEED_MAX_QUEUED_PER_PARTNER = 1
    tasks.process()
    assert InboundEvent.objects.get().status == "processed"


@pytest.mark.usefixtures("at_once")
def test_one_refusal_speaks_for_all_of_the_source(
    source: Sources, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source()
    settings.DEED_MAX_QUEUED_PER_PARTNER = 0
    asked: list[Partner] = []

    def has_room(partner: Partner, number: int) -> bool:
        asked.append(partner)
        return False

    monkeypatch.setattr(backlog, "has_room", has_room)
    _send("A", "B", "C")
    tasks.process()
    assert len(asked) == 1
    assert _waiting() == [("received", "queue_full")] * 3


def test_an_order_waits_for_its_quota(source: Sources, acme: Partner, clock: Any) -> None:
    source()
    Partner.objects.update(monthly_deed_quota=0)
    _send("A", "B")
    tasks.process()
    assert (_waiting(), Deed.objects.count()) == ([("received", "quota_exceeded")] * 2, 0)
    Partner.objects.update(monthly_deed_quota=2)
    clock.shift(dt.timedelta(minutes=16))
    tasks.sweep()
    assert (_waiting(), Deed.objects.count()) == ([], 2)


def test_an_order_waits_for_a_payment_and_not_for_ever(
    source: Sources, acme: Partner, clock: Any, settings: Any
) -> None:
    source()
    settings.WEBHOOKS_INBOUND_PATIENCE_HOURS = 1
    before = timezone.now() - dt.timedelta(days=1)
    Invoice.objects.create(
        partner=acme, status="open", currency="USD", number="1", due_at=before, grace_ends_at=before
    )
    _send("A")
    tasks.process()
    assert _waiting() == [("received", "payment_required")]
    clock.shift(dt.timedelta(hours=1, seconds=1))
    tasks.process()
    stored = InboundEvent.objects.get()
    assert (stored.status, stored.reason_code, stored.result_status) == (
        "needs_attention",
        "payment_required",
        402,
    )
    assert (stored.not_before, stored.waits_for) == (None, "")
    Invoice.objects.update(status="paid")
    assert stored.replay(corrected_body="")
    tasks.process()
    assert Deed.objects.count() == 1
