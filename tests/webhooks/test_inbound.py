"""The open door: an event that is let in becomes an order like any other, once."""

import datetime as dt
import json
import threading
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import structlog
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from deeds import tasks as deed_tasks
from deeds.models import Deed
from keys.models import Partner
from tests.conftest import MainApi
from tests.webhooks.conftest import Sources
from tests.webhooks.inbound_calls import FIRST, post, send, sign
from webhooks import hints, inbound, tasks
from webhooks.models import Delivery, Endpoint, Event, InboundEvent

pytestmark = pytest.mark.usefixtures("hinted", "clock")


Orders = Callable[..., dict[str, Any]]


def test_it_works(source: Sources, main_api: MainApi, acme: Partner, hinted: list[str]) -> None:
    source()
    answer = send(X_Webhook_Id="evt-1", X_Request_ID="from-softpro")
    assert answer.status_code == 202
    stored = InboundEvent.objects.get()
    assert answer.json() == {
        "object": "inbound_event",
        "id": str(stored.pk),
        "status": "accepted",
        "received_at": "2026-11-24T08:00:00Z",
    }
    assert (stored.status, stored.identity) == ("received", "id:evt-1")
    assert json.loads(bytes(stored.body)) == FIRST
    assert not Deed.objects.exists()
    tasks.process()
    deed = Deed.objects.get()
    stored.refresh_from_db()
    assert (stored.status, stored.deed) == ("processed", deed)
    assert (deed.partner, deed.livemode, deed.source, deed.order_id) == (acme, True, "webhook", "SP-1")
    assert (deed.deed_type, deed.request_id, deed.api_key) == ("grant", "from-softpro", None)
    assert [party["name"] for party in deed.order["grantors"]] == ["ALICE SMITH", "CAROL SMITH"]
    assert deed.order["transfer_tax"]["amount"] == "825"
    assert deed.order["recording"] == {"escrow_no": "E-1"}
    assert deed.order["metadata"] == {"branch": "Pomona", "priority": "2"}
    deed_tasks.serve(str(deed.pk))
    assert Event.objects.get().type == "deed.completed"


def test_the_workers_are_told_in_a_moment(source: Sources, hinted: list[str]) -> None:
    source()
    for number in range(3):
        send(X_Webhook_Id=f"evt-{number}")
    hints._sender.submit(lambda: None).result(5)
    assert set(hinted) == {"webhooks.tasks.process"}
    assert send(X_Webhook_Id="evt-1").status_code == 200


def test_the_end_of_the_deed_goes_back_to_the_partner(
    source: Sources, main_api: MainApi, register: Callable[..., Endpoint]
) -> None:
    source()
    register("https://softpro.example.com/", "deed.*")
    send()
    tasks.process()
    deed_tasks.serve(str(Deed.objects.get().pk))
    assert Delivery.objects.get().event.data["order_id"] == "SP-1"


@pytest.mark.parametrize("kind", ["grant", "quitclaim", "interspousal", "warranty", "tax"])
def test_todays_shape_is_the_same_order_as_over_the_api(source: Sources, order: Orders, kind: str) -> None:
    source()
    placed = order(kind)
    assert send(placed).status_code == 202
    tasks.process()
    assert {**Deed.objects.get().order, "deed_type": kind} == placed


def test_the_first_shape_with_members_of_todays(source: Sources, order: Orders) -> None:
    source()
    today = order("grant")
    mixed = {
        "order_id": "SP-2",
        "deed_type": "grant",
        "property_address": today["property"]["address"],
        "parties": {"grantor": "ALICE SMITH", "grantee": "BOB JONES"},
        "metadata": {"file": "77"},
        **{name: today[name] for name in ("property", "vesting", "transfer_tax", "recording")},
    }
    send(mixed)
    tasks.process()
    assert Deed.objects.get().order["property"] == today["property"]


def test_seen_again_is_answered_the_same_and_done_once(source: Sources, clock: Any) -> None:
    source()
    first = send(X_Webhook_Id="evt-1")
    tasks.process()
    again = send({**FIRST, "order_id": "SP-9"}, X_Webhook_Id="evt-1")
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json() == first.json()
    assert again["Idempotent-Replayed"] == "true"
    tasks.process()
    clock.shift(dt.timedelta(days=31))
    body = json.dumps(FIRST).encode()
    headers = sign(body, at=timezone.now()) | {"X-Webhook-Id": "evt-1"}
    assert (post(body, headers).status_code, post(body, headers).json()) == (200, first.json())
    tasks.process()
    assert (InboundEvent.objects.count(), Deed.objects.count()) == (1, 1)


def test_without_an_id_the_body_is_the_identity(source: Sources) -> None:
    source()
    assert [send().status_code, send().status_code] == [202, 200]
    assert send({**FIRST, "order_id": "SP-2"}).status_code == 202
    assert InboundEvent.objects.count() == 2


def test_the_same_order_in_two_events_is_one_deed(source: Sources) -> None:
    source()
    send(X_Webhook_Id="evt-1")
    send(X_Webhook_Id="evt-2")
    tasks.process()
    deed = Deed.objects.get()
    assert {event.deed for event in InboundEvent.objects.all()} == {deed}


@pytest.mark.django_db(transaction=True)
def test_a_hundred_at_once_are_one_deed_and_one_answer(source: Sources, acme: Partner) -> None:
    source()
    body = json.dumps(FIRST).encode()
    headers = sign(body) | {"X-Webhook-Id": "evt-1"}
    answers: list[Any] = []

    def run() -> None:
        try:
            answers.extend(post(body, headers) for _ in range(10))
            inbound.process_waiting()
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    inbound.process_waiting()
    assert sorted(answer.status_code for answer in answers) == [200] * 99 + [202]
    assert len({answer.content for answer in answers}) == 1
    assert (InboundEvent.objects.get().status, Deed.objects.count()) == ("processed", 1)


def test_the_demos_sources_take_orders_and_keep_their_secrets(acme: Partner, tmp_path: Path) -> None:
    state = tmp_path / "seed.json"
    seeds = []
    for _ in range(2):
        out = StringIO()
        call_command("seed_demo", state=state, stdout=out)
        seeds.append(json.loads(out.getvalue())["webhook_sources"])
    assert seeds[0] == seeds[1]
    body = json.dumps(FIRST).encode()
    assert post(body, sign(body, secret=seeds[0]["softpro"]["secret"])).status_code == 202
    tasks.process()
    assert Deed.objects.get().partner == acme


def test_the_way_in_is_two_statements(source: Sources, django_assert_num_queries: Any) -> None:
    source()
    with django_assert_num_queries(2):
        assert send().status_code == 202


def test_an_events_log_lines_name_its_own_request_and_no_other(source: Sources) -> None:
    source()
    send(X_Request_ID="of-the-order")
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id="of-the-hint")
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        tasks.process()
        inbound.log.info("afterwards")
    by_event = {line["event"]: line for line in lines}
    assert by_event["inbound_processed"]["request_id"] == "of-the-order"
    assert {"request_id", "partner", "inbound_event"}.isdisjoint(by_event["afterwards"])
