"""The back office makes, changes and suspends partners."""

from typing import Any

import pytest

from keys.models import AuditEntry, Partner
from tests.api import Api, errors_of
from tests.keys.back_office import send

pytestmark = pytest.mark.usefixtures("shared_secret")


def test_a_partner_is_made_read_and_changed(db: None) -> None:
    sent = {
        "name": "Acme Title",
        "contact_email": "it@acme.example",
        "monthly_deed_quota": 100,
        "monthly_request_quota": None,
        "budget_cap": "500.50",
    }
    made = send("POST", "/partners", sent)
    assert made.status_code == 201
    body = made.json()
    assert {name: body[name] for name in sent} == sent
    assert body["status"] == "active"
    path = f"/partners/{body['id']}"
    assert send("GET", path).json() == body
    changed = send("PATCH", path, {"budget_cap": None, "monthly_deed_quota": 0})
    assert changed.status_code == 200
    assert changed.json() == {**body, "budget_cap": None, "monthly_deed_quota": 0}
    assert send("GET", path).json() == changed.json()
    entries = AuditEntry.objects.order_by("id")
    assert [(entry.action, entry.actor_kind, entry.actor) for entry in entries] == [
        ("partner.created", "token", "maria"),
        ("partner.changed", "token", "maria"),
    ]
    assert entries[1].before == {"budget_cap": "500.50", "monthly_deed_quota": 100}


def test_a_suspension_needs_a_reason_and_holds_at_once(api: Api) -> None:
    path = f"/partners/{api.partner.pk}"
    assert errors_of(send("PATCH", path, {"status": "suspended"})) == {"/reason": "required"}
    assert api.get("/v2/deeds").status_code == 200
    assert send("PATCH", path, {"status": "suspended", "reason": "unpaid"}).json()["status"] == "suspended"
    assert api.get("/v2/deeds").json()["code"] == "partner_suspended"
    new = {"name": "New Escrow", "status": "suspended"}
    assert errors_of(send("POST", "/partners", new)) == {"/reason": "required"}
    assert send("POST", "/partners", {**new, "reason": "not signed yet"}).status_code == 201
    assert AuditEntry.objects.get(action="partner.created").reason == "not signed yet"
    assert AuditEntry.objects.get(action="partner.suspended").reason == "unpaid"
    assert send("PATCH", path, {"status": "active"}).status_code == 200
    assert api.get("/v2/deeds").status_code == 200


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, {"/name": "required"}),
        ({"name": " "}, {"/name": "invalid_value"}),
        ({"name": "Acme Title"}, {"/name": "invalid_value"}),
        ({"name": 7}, {"/name": "invalid_value"}),
        ({"name": "a\nb"}, {"/name": "invalid_characters"}),
        ({"name": "New", "reason": "\x1b[31m"}, {"/reason": "invalid_characters"}),
        ({"name": "x" * 201}, {"/name": "invalid_value"}),
        ({"name": "New", "nmae": "x"}, {"/nmae": "unknown_field"}),
        ({"name": "New", "contact_email": "nobody"}, {"/contact_email": "invalid_value"}),
        ({"name": "New", "monthly_deed_quota": -1}, {"/monthly_deed_quota": "invalid_value"}),
        ({"name": "New", "monthly_deed_quota": "5"}, {"/monthly_deed_quota": "invalid_value"}),
        ({"name": "New", "monthly_deed_quota": 2**40}, {"/monthly_deed_quota": "invalid_value"}),
        ({"name": "New", "monthly_deed_quota": True}, {"/monthly_deed_quota": "invalid_value"}),
        ({"name": "New", "budget_cap": 500.5}, {"/budget_cap": "invalid_value"}),
        ({"name": "New", "budget_cap": "500.505"}, {"/budget_cap": "invalid_value"}),
        ({"name": "New", "budget_cap": "-1"}, {"/budget_cap": "invalid_value"}),
        ({"name": "New", "budget_cap": "NaN"}, {"/budget_cap": "invalid_value"}),
        ({"name": "New", "status": "gone"}, {"/status": "invalid_value"}),
        ([], {"": "invalid_type"}),
    ],
)
def test_a_wrong_partner_is_refused_by_field(acme: Partner, body: Any, errors: dict[str, str]) -> None:
    assert errors_of(send("POST", "/partners", body)) == errors
    assert Partner.objects.count() == 1
    assert not AuditEntry.objects.exists()


def test_an_unknown_field_is_suggested(db: None) -> None:
    message = send("POST", "/partners", {"name": "x", "budget_cpa": "1"}).json()["errors"][0]["message"]
    assert "did you mean 'budget_cap'?" in message
