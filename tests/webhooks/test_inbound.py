"""The open door: lets in who signs, once, and makes an order like any other."""

import datetime as dt
import hashlib
import hmac
import json
import threading
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from deeds import tasks as deed_tasks
from deeds.models import Deed
from keys.models import Partner
from tests.conftest import MainApi
from webhooks import hints, inbound, shadow, tasks
from webhooks.models import Delivery, Endpoint, Event, InboundEvent, Source

NOW = dt.datetime(2026, 11, 24, 8, tzinfo=dt.UTC)
Orders = Callable[..., dict[str, Any]]
Sources = Callable[..., Source]

# As the first version's clients send it.
FIRST = {
    "order_id": "SP-1",
    "deed_type": "grant_deed",
    "property_address": "123 Main St, La Verne, CA 91750",
    "parties": {"grantor": "ALICE SMITH; CAROL SMITH", "grantee": ["BOB JONES"]},
    "metadata": {
        "county": "Los Angeles",
        "apn": "8381-021-001",
        "legal_description": "LOT 1 OF TRACT NO. 6654",
        "vesting": "a single man",
        "dtt": {
            "amount": 825,
            "basis": "full_value",
            "area_type": "city",
            "city_name": "La Verne",
            "is_exempt": False,
        },
        "escrow_no": "E-1",
        "branch": "Pomona",
        "priority": 2,
    },
}


@pytest.fixture(autouse=True)
def _no_workers(hinted: list[str]) -> None:
    """Events are processed by the tests' own calls."""


def _sign(body: bytes, *, secret: str = "secret", at: dt.datetime | str | None = NOW) -> dict[str, str]:
    """Headers; without a time for `at` None."""
    if at is None:
        signed, headers = body, {}
    else:
        text = at if isinstance(at, str) else str(int(at.timestamp()))
        signed, headers = text.encode() + b"." + body, {"X-Webhook-Timestamp": text}
    return {**headers, "X-SoftPro-Signature": hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}


def _post(body: bytes, headers: dict[str, str], system: str = "softpro") -> Any:
    return Client(raise_request_exception=False).post(
        f"/v1/webhooks/{system}", body, content_type="application/json", headers=headers
    )


def _send(payload: Any = FIRST, **headers: str) -> Any:
    body = json.dumps(payload).encode()
    return _post(body, _sign(body) | {name.replace("_", "-"): value for name, value in headers.items()})


def _refused(answer: Any, code: str = "invalid_signature") -> None:
    assert (answer.status_code, answer.json()["code"]) == (401, code), answer.content
    assert answer["Content-Type"] == "application/problem+json"
    assert not InboundEvent.objects.exists()


@pytest.fixture(autouse=True)
def clock() -> Any:
    with time_machine.travel(NOW, tick=False) as clock:
        yield clock


def test_it_works(source: Sources, main_api: MainApi, acme: Partner, hinted: list[str]) -> None:
    source()
    answer = _send(X_Webhook_Id="evt-1", X_Request_ID="from-softpro")
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
    deed_tasks.render(str(deed.pk))
    assert Event.objects.get().type == "deed.completed"


def test_the_workers_are_told_in_a_moment(source: Sources, hinted: list[str]) -> None:
    source()
    for number in range(3):
        _send(X_Webhook_Id=f"evt-{number}")
    hints._sender.submit(lambda: None).result(5)
    assert set(hinted) == {"webhooks.tasks.process"}
    assert _send(X_Webhook_Id="evt-1").status_code == 200


def test_the_end_of_the_deed_goes_back_to_the_partner(
    source: Sources, main_api: MainApi, register: Callable[..., Endpoint]
) -> None:
    source()
    register("https://softpro.example.com/", "deed.*")
    _send()
    tasks.process()
    deed_tasks.render(str(Deed.objects.get().pk))
    assert Delivery.objects.get().event.data["order_id"] == "SP-1"


@pytest.mark.parametrize("kind", ["grant", "quitclaim", "interspousal", "warranty", "tax"])
def test_todays_shape_is_the_same_order_as_over_the_api(source: Sources, order: Orders, kind: str) -> None:
    source()
    placed = order(kind)
    assert _send(placed).status_code == 202
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
    _send(mixed)
    tasks.process()
    assert Deed.objects.get().order["property"] == today["property"]


@pytest.mark.parametrize(
    "change",
    [
        {"X-SoftPro-Signature": None},
        {"X-SoftPro-Signature": ""},
        {"X-SoftPro-Signature": "0" * 64},
        {"X-SoftPro-Signature": "not hex"},
        {"X-SoftPro-Signature": "sha1={}"},
        {"X-SoftPro-Signature": "{},{}"},
        {"X-SoftPro-Signature": "{}, {}"},
        {"X-SoftPro-Signature": "{}00"},
        {"X-Signature": "0" * 64},
        {"X-Webhook-Timestamp": str(int(NOW.timestamp()) + 1)},
        {"X-Webhook-Timestamp": None},
    ],
)
def test_a_signature_that_is_not_right_lets_nothing_in(
    source: Sources, change: dict[str, str | None]
) -> None:
    source()
    body = json.dumps(FIRST).encode()
    headers = _sign(body)
    for name, value in change.items():
        right = headers.pop(name, "")
        if value is not None:
            headers[name] = value.replace("{}", right)
    _refused(_post(body, headers))


def test_two_headers_of_one_name_are_none(source: Sources) -> None:
    """As a server hands over a header that was sent twice."""
    source()
    body = json.dumps(FIRST).encode()
    headers = _sign(body)
    headers["X-SoftPro-Signature"] = ",".join([headers["X-SoftPro-Signature"], "0" * 64])
    _refused(_post(body, headers))


@pytest.mark.parametrize("form", ["{}", "sha256={}", "SHA256={}", " {} "])
@pytest.mark.parametrize("name", ["X-SoftPro-Signature", "X-Signature"])
def test_the_forms_of_the_header(source: Sources, form: str, name: str) -> None:
    source()
    body = json.dumps(FIRST).encode()
    headers = _sign(body)
    digest = headers.pop("X-SoftPro-Signature")
    digest = digest.upper() if form.startswith("SHA") else digest
    assert _post(body, headers | {name: form.format(digest)}).status_code == 202


def test_the_bytes_are_what_is_signed(source: Sources) -> None:
    source()
    body = json.dumps(FIRST, indent=1).encode()
    headers = _sign(body)
    _refused(_post(json.dumps(json.loads(body)).encode(), headers))
    _refused(_post(body.replace(b"SP-1", b"SP-2"), headers))
    _refused(_post(body + b" ", headers))
    _refused(_post(b"", headers))
    assert _post(body, headers).status_code == 202


@pytest.mark.parametrize("seconds", [-360, -301, 301, 360])
def test_a_time_that_is_far_off_is_stale(source: Sources, seconds: int) -> None:
    source()
    body = json.dumps(FIRST).encode()
    headers = _sign(body, at=NOW + dt.timedelta(seconds=seconds))
    _refused(_post(body, headers), "stale_signature")
    # Who does not hold the secret is not told that.
    _refused(_post(body, headers | {"X-SoftPro-Signature": "0" * 64}))


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_a_time_within_five_minutes_is_taken(source: Sources, seconds: int) -> None:
    source()
    body = json.dumps(FIRST).encode()
    assert _post(body, _sign(body, at=NOW + dt.timedelta(seconds=seconds))).status_code == 202


@pytest.mark.parametrize("text", ["", "now", "1.5", "-1", "99999999999999999999"])
def test_a_time_that_is_none_is_stale(source: Sources, text: str) -> None:
    source()
    body = json.dumps(FIRST).encode()
    _refused(_post(body, _sign(body, at=text)), "stale_signature")


def test_a_strict_source_needs_a_time_and_another_does_not(source: Sources) -> None:
    strict = source()
    body = json.dumps(FIRST).encode()
    _refused(_post(body, _sign(body, at=None)), "stale_signature")
    strict.strict = False
    strict.save()
    assert _post(body, _sign(body, at=None)).status_code == 202


def test_another_sources_secret_opens_only_its_own_door(source: Sources) -> None:
    other = Partner.objects.create(name="Pacific Escrow")
    mine = source()
    source("softpro", secret="theirs", partner=other)
    source("qualia", secret="of qualia")
    body = json.dumps(FIRST).encode()
    _refused(_post(body, _sign(body, secret="of qualia")))
    assert _post(body, _sign(body, secret="theirs")).status_code == 202
    tasks.process()
    assert Deed.objects.get().partner == other
    # The same bytes and id of another source are another event.
    assert _post(body, _sign(body)).status_code == 202
    assert InboundEvent.objects.filter(source=mine).count() == 1


def test_a_source_can_be_named_where_there_are_many(source: Sources, settings: Any) -> None:
    settings.WEBHOOKS_SOURCES_TRIED = 1
    mine = source()
    source(secret="theirs", partner=Partner.objects.create(name="Pacific Escrow"))
    _refused(_send())
    assert "X-Webhook-Source" in _send().json()["detail"]
    _refused(_send(X_Webhook_Source="nonsense"))
    assert _send(X_Webhook_Source=str(mine.pk)).status_code == 202


def test_each_secret_holds_while_they_overlap(source: Sources, clock: Any) -> None:
    mine = source()
    mine.give_secret("fresh", now=timezone.now(), overlap=dt.timedelta(hours=24))
    mine.save()
    bodies = [json.dumps(FIRST | {"order_id": f"SP-{n}"}).encode() for n in range(4)]
    assert _post(bodies[0], _sign(bodies[0])).status_code == 202
    assert _post(bodies[1], _sign(bodies[1], secret="fresh")).status_code == 202
    clock.shift(dt.timedelta(hours=25))
    later = timezone.now()
    assert _post(bodies[2], _sign(bodies[2], at=later)).status_code == 401
    assert _post(bodies[3], _sign(bodies[3], secret="fresh", at=later)).status_code == 202


def test_a_disabled_source_and_an_unknown_system(source: Sources) -> None:
    source(enabled=False)
    _refused(_send())
    body = json.dumps(FIRST).encode()
    assert _post(body, _sign(body), "acme").status_code == 404
    assert _post(body, _sign(body), "shapes").status_code == 404


def test_a_suspended_partner_is_refused_once_the_signature_is_right(source: Sources, acme: Partner) -> None:
    source()
    Partner.objects.update(status="suspended")
    _refused(_send(), "partner_suspended")
    _refused(_post(b"{}", {"X-SoftPro-Signature": "0" * 64}))


def test_a_partner_suspended_meanwhile_gets_no_deed(source: Sources, acme: Partner) -> None:
    source()
    _send()
    Partner.objects.update(status="suspended")
    tasks.process()
    stored = InboundEvent.objects.get()
    assert (stored.status, stored.reason_code) == ("needs_attention", "partner_suspended")
    assert not Deed.objects.exists()


def test_a_body_that_is_too_large_is_refused_before_it_is_read(source: Sources) -> None:
    source()
    body = b'"' + b"a" * (10 * 1024 * 1024) + b'"'
    answer = _post(body, _sign(body))
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert not InboundEvent.objects.exists()


@pytest.mark.parametrize("name", ["", "a b", "é", "x" * 201])
def test_an_id_that_is_none_is_refused(source: Sources, name: str) -> None:
    source()
    assert _send(X_Webhook_Id=name).status_code == 400
    assert not InboundEvent.objects.exists()


def test_seen_again_is_answered_the_same_and_done_once(source: Sources, clock: Any) -> None:
    source()
    first = _send(X_Webhook_Id="evt-1")
    tasks.process()
    again = _send({**FIRST, "order_id": "SP-9"}, X_Webhook_Id="evt-1")
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json() == first.json()
    assert again["Idempotent-Replayed"] == "true"
    tasks.process()
    clock.shift(dt.timedelta(days=31))
    body = json.dumps(FIRST).encode()
    headers = _sign(body, at=timezone.now()) | {"X-Webhook-Id": "evt-1"}
    assert (_post(body, headers).status_code, _post(body, headers).json()) == (200, first.json())
    tasks.process()
    assert (InboundEvent.objects.count(), Deed.objects.count()) == (1, 1)


def test_without_an_id_the_body_is_the_identity(source: Sources) -> None:
    source()
    assert [_send().status_code, _send().status_code] == [202, 200]
    assert _send({**FIRST, "order_id": "SP-2"}).status_code == 202
    assert InboundEvent.objects.count() == 2


def test_the_same_order_in_two_events_is_one_deed(source: Sources) -> None:
    source()
    _send(X_Webhook_Id="evt-1")
    _send(X_Webhook_Id="evt-2")
    tasks.process()
    deed = Deed.objects.get()
    assert {event.deed for event in InboundEvent.objects.all()} == {deed}


@pytest.mark.django_db(transaction=True)
def test_a_hundred_at_once_are_one_deed_and_one_answer(source: Sources, acme: Partner) -> None:
    source()
    body = json.dumps(FIRST).encode()
    headers = _sign(body) | {"X-Webhook-Id": "evt-1"}
    answers: list[Any] = []

    def run() -> None:
        try:
            answers.extend(_post(body, headers) for _ in range(10))
            inbound.process_waiting()
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200] * 99 + [202]
    assert len({answer.content for answer in answers}) == 1
    assert (InboundEvent.objects.get().status, Deed.objects.count()) == ("processed", 1)


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
    assert _post(body, _sign(body)).status_code == 202
    tasks.process()
    stored = InboundEvent.objects.get()
    assert (stored.status, stored.result_status, stored.reason_code) == ("needs_attention", status, code)
    assert stored.reason
    assert bytes(stored.body) == body
    assert [error["pointer"] for error in stored.errors][:1] == ([] if pointer is None else [pointer])
    assert not Deed.objects.exists()


def test_an_order_that_conflicts_waits_for_staff(source: Sources) -> None:
    source()
    _send()
    _send({**FIRST, "property_address": "Elsewhere"})
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
    _send({**FIRST, "deed_type": "lease"})
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
    _send()
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


def test_an_event_that_ends_its_worker_again_and_again_waits_for_staff(source: Sources) -> None:
    source()
    _send()
    InboundEvent.objects.update(attempts=5)
    tasks.process()
    assert InboundEvent.objects.get().reason_code == "internal_error"


def test_the_demos_sources_take_orders_and_keep_their_secrets(acme: Partner, tmp_path: Path) -> None:
    state = tmp_path / "seed.json"
    seeds = []
    for _ in range(2):
        out = StringIO()
        call_command("seed_demo", state=state, stdout=out)
        seeds.append(json.loads(out.getvalue())["webhook_sources"])
    assert seeds[0] == seeds[1]
    body = json.dumps(FIRST).encode()
    assert _post(body, _sign(body, secret=seeds[0]["softpro"]["secret"])).status_code == 202
    tasks.process()
    assert Deed.objects.get().partner == acme


def test_the_way_in_is_two_statements(source: Sources, django_assert_num_queries: Any) -> None:
    source()
    with django_assert_num_queries(2):
        assert _send().status_code == 202


def test_a_shadow_replay_shows_the_difference_and_does_nothing(source: Sources) -> None:
    source()
    _send()
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
    _send({**FIRST, "deed_type": "lease"})
    tasks.process()
    found = shadow.run(InboundEvent.objects.get())
    assert (found.order, found.errors[0]["code"]) == (None, "unknown_deed_type")
