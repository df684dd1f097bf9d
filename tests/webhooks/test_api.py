"""Endpoints, events and deliveries over the API."""

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from keys import signals as keys
from keys.models import AuditEntry
from tests.api import Api, errors_of
from tests.webhooks.conftest import SECRET, Receiver, verified
from webhooks import delivery
from webhooks.models import Delivery, Endpoint, Event

Register = Callable[..., Endpoint]
PATH = "/v2/webhook-endpoints"


@pytest.fixture(autouse=True)
def _no_workers(hinted: list[str]) -> None:
    """Deliveries are sent by the tests' own calls."""


def _happen(api: Api) -> Event:
    keys.key_revoked.send(sender=type(api.key), key=api.key)
    event = Event.objects.order_by("-id").first()
    assert event is not None
    return event


def test_it_works(api: Api, receiver: Receiver) -> None:
    body = {"url": receiver.url, "event_types": ["key.*"], "description": "Ours"}
    answer = api.post(PATH, body)
    assert answer.status_code == 201
    assert answer["Cache-Control"] == "no-store"
    made = answer.json()
    assert made["secret"].startswith("whsec_")
    assert made | {"id": "", "secret": "", "created_at": ""} == {
        "id": "",
        "object": "webhook_endpoint",
        "livemode": True,
        **body,
        "enabled": True,
        "disabled_reason": None,
        "failing_since": None,
        "created_at": "",
        "secret": "",
    }
    event = _happen(api)
    delivery.pump()
    verified(receiver.received[0], made["secret"])
    [row] = api.get(f"/v2/webhook-deliveries?endpoint={made['id']}").json()["data"]
    assert (row["event"], row["status"], row["last_status"]) == (str(event.pk), "succeeded", 204)
    one = api.get(f"/v2/webhook-deliveries/{row['id']}").json()
    assert [(entry["number"], entry["status"], entry["error"]) for entry in one["log"]] == [(1, 204, None)]
    assert api.get(f"/v2/events/{event.pk}").json() == json.loads(receiver.received[0].body)


def test_a_secret_is_shown_once_and_kept_encrypted(api: Api, receiver: Receiver) -> None:
    made = api.post(PATH, {"url": receiver.url}).json()
    assert made["event_types"] == ["*"]
    for path in (PATH, f"{PATH}/{made['id']}"):
        assert made["secret"] not in api.get(path).content.decode()
    kept = Endpoint.objects.raw("SELECT id, secrets AS raw FROM webhook_endpoints")[0]
    assert made["secret"] not in kept.raw  # type: ignore[attr-defined]  # the raw query's column
    entries = list(AuditEntry.objects.values("action", "actor", "after"))
    assert [entry["action"] for entry in entries] == ["webhook_endpoint.created"]
    assert made["secret"] not in json.dumps(entries)


def test_a_name_is_looked_up_outside_of_the_transaction_and_a_repetition_does_not_depend_on_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_before = len(connection.savepoint_ids)
    lookups: list[int] = []

    def public(*_: Any, **__: Any) -> Any:
        lookups.append(len(connection.savepoint_ids) - open_before)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 443))]

    def private(*_: Any, **__: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 443))]

    body = {"url": "https://hooks.example.com/"}
    monkeypatch.setattr(socket, "getaddrinfo", public)
    first = api.post(PATH, body, Idempotency_Key="once")
    assert (first.status_code, lookups) == (201, [0])
    monkeypatch.setattr(socket, "getaddrinfo", private)
    assert api.post(PATH, body, Idempotency_Key="once").json() == first.json()
    assert errors_of(api.post(PATH, body, Idempotency_Key="another")) == {"/url": "url_refused"}
    assert Endpoint.objects.count() == 1


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ([], {"": "invalid_type"}),
        ({}, {"/url": "required"}),
        ({"url": ""}, {"/url": "required"}),
        ({"url": 5}, {"/url": "invalid_type"}),
        ({"url": "https://" + "a" * 2000}, {"/url": "too_long"}),
        ({"url": "http://hooks.example.com/"}, {"/url": "url_refused"}),
        ({"url": "https://10.0.0.1/"}, {"/url": "url_refused"}),
        ({"url": "https://user:password@example.com/"}, {"/url": "url_refused"}),
        ({"url": "https://8.8.8.8/", "event_types": []}, {"/event_types": "required"}),
        ({"url": "https://8.8.8.8/", "event_types": "*"}, {"/event_types": "invalid_type"}),
        ({"url": "https://8.8.8.8/", "event_types": ["deed.done"]}, {"/event_types/0": "unknown_event_type"}),
        ({"url": "https://8.8.8.8/", "description": "a" * 201}, {"/description": "too_long"}),
        ({"url": "https://8.8.8.8/", "types": ["*"]}, {"/types": "unknown_field"}),
        ({"url": "https://8.8.8.8/", "secret": "mine"}, {"/secret": "unknown_field"}),
    ],
)
def test_what_is_wrong_is_named(api: Api, body: Any, errors: dict[str, str]) -> None:
    assert errors_of(api.post(PATH, body)) == errors
    assert not Endpoint.objects.exists()


def test_an_unknown_type_gets_a_suggestion(api: Api) -> None:
    answer = api.post(PATH, {"url": "https://8.8.8.8/", "event_types": ["deed.complete"]})
    assert "did you mean 'deed.completed'?" in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize(
    ("method", "suffix"),
    [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/test"),
        ("POST", "/rotate-secret"),
        ("POST", "/replay"),
    ],
)
def test_a_foreign_endpoint_looks_like_no_endpoint(
    api: Api, stranger: Api, register: Register, method: str, suffix: str
) -> None:
    foreign = register("https://a.example.com/", partner=stranger.partner)
    in_test = register("https://a.example.com/", livemode=False)
    gone = register("https://a.example.com/")
    gone.delete_softly(now=gone.created_at)
    body = {"since": "2026-11-24T08:00:00Z"} if suffix == "/replay" else {}
    answers = [
        api.send(method, f"{PATH}/{pk}{suffix}", body)
        for pk in (foreign.pk, in_test.pk, gone.pk, "019abcde-0000-7000-8000-000000000001")
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({json.dumps(answer.json() | {"request_id": ""}) for answer in answers}) == 1
    foreign.refresh_from_db()
    assert (foreign.enabled, Delivery.objects.count()) == (True, 0)
    assert api.get(PATH).json()["data"] == []


def test_each_call_needs_the_scope(api: Api) -> None:
    weak = Api.of(api.partner, scopes=["deed:*", "usage:read", "billing:read", "key:manage"])
    for path in (PATH, "/v2/events", "/v2/webhook-deliveries"):
        answer = weak.get(path)
        assert (answer.status_code, answer.json()["required_scope"]) == (403, "webhook:manage")


def test_an_endpoint_is_changed(api: Api, receiver: Receiver, register: Register) -> None:
    endpoint = register(receiver.url, "deed.*")
    changes = {"event_types": ["key.revoked"], "description": "New", "url": f"{receiver.url}/new"}
    answer = api.send("PATCH", f"{PATH}/{endpoint.pk}", changes)
    assert answer.status_code == 200
    assert {name: answer.json()[name] for name in changes} == changes
    _happen(api)
    delivery.pump()
    assert [received.path for received in receiver.received] == ["/hooks/new"]
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.before["description"], entry.after["description"]) == (
        "webhook_endpoint.changed",
        "",
        "New",
    )
    assert errors_of(api.send("PATCH", f"{PATH}/{endpoint.pk}", {"url": "https://10.0.0.1/"})) == {
        "/url": "url_refused"
    }


def test_disabled_and_enabled_again(api: Api, receiver: Receiver, register: Register) -> None:
    endpoint = register(receiver.url)
    path = f"{PATH}/{endpoint.pk}"
    answer = api.send("PATCH", path, {"enabled": False})
    assert (answer.json()["enabled"], answer.json()["disabled_reason"]) == (False, "by_partner")
    event = _happen(api)
    delivery.pump()
    for suffix in ("/test", "/replay"):
        refused = api.post(
            f"{path}{suffix}", {"since": "2026-01-01T00:00:00Z"} if suffix == "/replay" else None
        )
        assert (refused.status_code, refused.json()["code"]) == (409, "endpoint_disabled")
    assert receiver.received == []
    assert api.send("PATCH", path, {"enabled": True}).json()["disabled_reason"] is None
    since = event.created_at.isoformat()
    assert api.post(f"{path}/replay", {"since": since}).json() == {"queued": 1}
    delivery.pump()
    assert [one.headers["webhook-id"] for one in receiver.received] == [str(event.pk)]


def test_a_test_message(api: Api, receiver: Receiver, receivers: Any, register: Register) -> None:
    other = receivers()
    endpoint, _ = register(receiver.url, "invoice.*"), register(other.url)
    answer = api.post(f"{PATH}/{endpoint.pk}/test")
    assert (answer.status_code, answer.json()["event_type"]) == (202, "webhook.test")
    delivery.pump()
    assert json.loads(receiver.received[0].body)["data"] == {"endpoint": str(endpoint.pk)}
    assert other.received == []


def test_a_secret_is_rotated_with_both_signing_for_a_while(
    api: Api, receiver: Receiver, register: Register
) -> None:
    endpoint = register(receiver.url)
    answer = api.post(f"{PATH}/{endpoint.pk}/rotate-secret")
    fresh = answer.json()["secret"]
    assert (answer.status_code, answer["Cache-Control"]) == (200, "no-store")
    _happen(api)
    delivery.pump()
    verified(receiver.received[0], fresh)
    verified(receiver.received[0], SECRET)
    assert AuditEntry.objects.get().action == "webhook_endpoint.secret_rotated"


def test_a_deleted_endpoint_leaves_its_deliveries(api: Api, receiver: Receiver, register: Register) -> None:
    endpoint = register(receiver.url)
    _happen(api)
    delivery.pump()
    assert api.send("DELETE", f"{PATH}/{endpoint.pk}").status_code == 204
    _happen(api)
    delivery.pump()
    assert len(receiver.received) == 1
    [row] = api.get("/v2/webhook-deliveries").json()["data"]
    refused = api.post(f"/v2/webhook-deliveries/{row['id']}/resend")
    assert (refused.status_code, refused.json()["code"]) == (409, "endpoint_disabled")


def test_one_delivery_is_sent_again(api: Api, receiver: Receiver, register: Register) -> None:
    register(receiver.url)
    event = _happen(api)
    delivery.pump()
    [row] = api.get(f"/v2/webhook-deliveries?event={event.pk}&status=succeeded").json()["data"]
    answer = api.post(f"/v2/webhook-deliveries/{row['id']}/resend")
    assert (answer.status_code, answer.json()["status"]) == (202, "pending")
    delivery.pump()
    assert {one.headers["webhook-id"] for one in receiver.received} == {str(event.pk)}
    assert len(receiver.received) == 2
    log = api.get(f"/v2/webhook-deliveries/{row['id']}").json()["log"]
    assert len(log) == 2


def test_lists_are_ones_own_and_in_pages(api: Api, stranger: Api, register: Register) -> None:
    register("https://a.example.com/")
    events = [str(_happen(api).pk) for _ in range(5)]
    first = api.get("/v2/events?limit=3").json()
    second = api.get(first["next"].removeprefix("http://testserver")).json()
    assert [row["id"] for row in first["data"] + second["data"]] == events[::-1]
    assert [row["event"] for row in api.get("/v2/webhook-deliveries").json()["data"]] == events[::-1]
    assert api.get("/v2/events?type=key.*").json()["data"] != []
    assert api.get("/v2/events?type=deed.*").json()["data"] == []
    for path in ("/v2/events", "/v2/webhook-deliveries", PATH):
        assert stranger.get(path).json()["data"] == []
    delivery_id = Delivery.objects.values_list("pk", flat=True)[0]
    for path in (f"/v2/events/{events[0]}", f"/v2/webhook-deliveries/{delivery_id}"):
        assert stranger.get(path).status_code == 404
    assert stranger.post(f"/v2/webhook-deliveries/{delivery_id}/resend").status_code == 404


@pytest.mark.parametrize(
    ("query", "errors"),
    [
        ("/v2/events?kind=x", {"/kind": "unknown_parameter"}),
        ("/v2/events?type=deed", {"/type": "unknown_event_type"}),
        ("/v2/webhook-deliveries?status=done", {"/status": "invalid_value"}),
        ("/v2/webhook-deliveries?endpoint=1", {"/endpoint": "invalid_value"}),
        ("/v2/webhook-deliveries?limit=0", {"/limit": "invalid_value"}),
        (f"{PATH}?limit=1&limit=2", {"/limit": "repeated"}),
    ],
)
def test_a_query_is_read_strictly(api: Api, query: str, errors: dict[str, str]) -> None:
    assert errors_of(api.get(query)) == errors


@pytest.mark.parametrize("since", [None, 0, "yesterday", "2026-11-24T08:00:00", True])
def test_replay_needs_a_time_with_its_zone(api: Api, register: Register, since: Any) -> None:
    endpoint = register("https://a.example.com/")
    assert set(errors_of(api.post(f"{PATH}/{endpoint.pk}/replay", {"since": since}))) == {"/since"}


def test_there_is_a_limit_to_endpoints(api: Api, receiver: Receiver, register: Register) -> None:
    for number in range(50):
        register(f"https://a.example.com/{number}")
    assert errors_of(api.post(PATH, {"url": receiver.url})) == {"": "too_many"}
