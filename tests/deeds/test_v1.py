"""The first version's API."""

import json
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from deeds import hints, tasks, waiting
from deeds.models import Deed
from tests.api import Api, errors_of
from tests.conftest import MainApi

Orders = Callable[..., dict[str, Any]]


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch, main_api: MainApi, transactional_db: None) -> MainApi:
    """Renders as soon as an order is committed."""
    monkeypatch.setattr(hints, "send", tasks.serve)
    return main_api


def body(**data: Any) -> dict[str, Any]:
    return {
        "order_id": "V1-1",
        "property_address": "123 Main St, La Verne, CA 91750",
        "parties": {"grantor": "ALICE SMITH; CAROL SMITH", "grantee": ["BOB JONES"]},
        "data": {
            "county": "Los Angeles",
            "apn": "8381-021-001",
            "legal_description": "LOT 1",
            "vesting": "a single man",
            "requested_by": "Acme Title",
            "transfer_value": 750000,
            "dtt": {
                "amount": 825.5,
                "basis": "full_value",
                "area_type": "city",
                "city_name": "La Verne",
                "is_exempt": False,
            },
            **data,
        },
    }


def test_it_works(api: Api, inline: MainApi) -> None:
    answer = api.post("/v1/deeds/grant", body())
    assert answer.status_code == 200
    made = answer.json()
    assert set(made) == {"external_deed_id", "pdf_url", "status", "order_id"}
    assert (made["status"], made["order_id"]) == ("completed", "V1-1")
    assert made["pdf_url"].startswith("http://testserver/files/deeds/")
    read = api.get(f"/v1/deeds/{made['external_deed_id']}").json()
    assert read == {
        "external_deed_id": made["external_deed_id"],
        "partner": "Acme Title",
        "order_id": "V1-1",
        "deed_type": "grant",
        "property_address": "123 Main St, La Verne, CA 91750",
        "pdf_url": read["pdf_url"],
        "status": "completed",
        "created_at": read["created_at"],
    }
    order = Deed.objects.get().order
    assert order["grantors"] == [{"name": "ALICE SMITH"}, {"name": "CAROL SMITH"}]
    assert order["transfer_tax"]["amount"] == "825.5"
    assert order["transfer_tax"]["transfer_value"] == "750000"


def test_the_fields_of_v2_do_as_well(api: Api, order: Orders, inline: MainApi) -> None:
    facts = order()
    given = {
        "order_id": "V1-2",
        "property_address": facts["property"].pop("address"),
        "parties": {"grantor": ["ALICE SMITH"], "grantee": "BOB JONES"},
        "data": {name: facts[name] for name in ("property", "vesting", "transfer_tax", "recording")},
    }
    assert api.post("/v1/deeds/grant", given).status_code == 200


@pytest.mark.parametrize(
    ("deed_type", "data"),
    [
        ("quitclaim", {}),
        ("warranty", {"covenants": "none"}),
        ("interspousal", {"dtt": None, "dtt_exempt_reason": "R&T 11927", "transfer_value": None}),
        ("tax", {"tax_sale_ref": "2026-A"}),
    ],
)
def test_every_type_can_be_ordered(api: Api, inline: MainApi, deed_type: str, data: dict[str, Any]) -> None:
    given = body(**data)
    given["data"] = {name: value for name, value in given["data"].items() if value is not None}
    assert api.post(f"/v1/deeds/{deed_type}", given).status_code == 200


def test_still_rendering_is_202_with_a_location(api: Api, order: Orders, settings: Any) -> None:
    settings.V1_WAIT_SECONDS = 0
    answer = api.post("/v1/deeds/grant", body())
    assert answer.status_code == 202
    made = answer.json()
    assert (made["status"], made["pdf_url"]) == ("queued", None)
    assert answer["Location"] == f"http://testserver/v1/deeds/{made['external_deed_id']}"


def test_failed_is_502_with_the_reason(api: Api, inline: MainApi) -> None:
    answer = api.post("/v1/deeds/grant", {**body(), "order_id": "sandbox-400"})
    assert answer.status_code == 502
    problem = answer.json()
    assert problem["code"] == "deed_failed"
    assert "Grantor information is required" in problem["detail"]
    assert problem["external_deed_id"] == str(Deed.objects.get().pk)


def test_the_same_order_again_is_the_same_deed(api: Api, inline: MainApi) -> None:
    first, second = (api.post("/v1/deeds/grant", body()) for _ in range(2))
    assert first.json()["external_deed_id"] == second.json()["external_deed_id"]
    assert second["Idempotent-Replayed"] == "true"
    assert len(inline.calls) == 1


@pytest.mark.parametrize(
    ("spoil", "pointer", "code"),
    [
        (lambda b: b["data"].pop("apn"), "/data/apn", "required"),
        (lambda b: b["data"].pop("county"), "/data/county", "required"),
        (lambda b: b["data"].update(county="Los Angelos"), "/data/county", "unknown_county"),
        (lambda b: b["data"].pop("vesting"), "/data/vesting", "required"),
        (lambda b: b["data"]["dtt"].pop("amount"), "/data/dtt/amount", "required"),
        (lambda b: b["data"]["dtt"].update(amount=1.005), "/data/dtt/amount", "invalid_money"),
        (lambda b: b["data"]["dtt"].update(sum=1), "/data/dtt/sum", "unknown_field"),
        (lambda b: b["data"].update(countie="x"), "/data/countie", "unknown_field"),
        (lambda b: b["data"].update(property="x"), "/data/property", "contradiction"),
        (lambda b: b["data"].update(property={"apn": "other"}), "/data/property/apn", "contradiction"),
        (lambda b: b["parties"].pop("grantor"), "/parties/grantor", "required"),
        (
            lambda b: b["data"].update(transfer_value=0.125),
            "/data/transfer_value",
            "invalid_money",
        ),
        (lambda b: b["parties"].update(grantor=""), "/parties/grantor", "blank"),
        (lambda b: b["parties"].update(grantor="A; ."), "/parties/grantor", "blank"),
        (lambda b: b["parties"].update(grantee=["B", "."]), "/parties/grantee/1", "blank"),
        (lambda b: b["parties"].update(grantee=["B", {"name": "."}]), "/parties/grantee/1/name", "blank"),
        (lambda b: b["data"].update(grantors_text="DORA LEE"), "/data/grantors_text", "contradiction"),
        (lambda b: b["data"].update(grantees=[{"name": "DORA LEE"}]), "/data/grantees", "contradiction"),
        (lambda b: b["parties"].update(seller="x"), "/parties/seller", "unknown_field"),
        (lambda b: b.pop("order_id"), "/order_id", "required"),
        (lambda b: b.update(orderid="x"), "/orderid", "unknown_field"),
        (lambda b: b.update(property_address=7), "/property_address", "invalid_type"),
        (lambda b: b.update(data=[]), "/data", "invalid_type"),
    ],
)
def test_an_error_speaks_of_the_body_that_was_sent(
    api: Api, main_api: MainApi, spoil: Callable[[Any], Any], pointer: str, code: str
) -> None:
    given = body()
    spoil(given)
    assert errors_of(api.post("/v1/deeds/grant", given))[pointer] == code
    assert not Deed.objects.exists()
    assert main_api.calls == []


def test_an_empty_text_is_a_field_left_out(api: Api, inline: MainApi) -> None:
    """Forms of the first version's clients send every field they have."""
    empty = {"escrow_no": "", "covenants": "", "grantors_text": "", "execution_date": "", "tax_sale_ref": ""}
    given = body(**empty, return_to={"name": "Bob Jones", "address2": ""})
    given["data"]["dtt"] |= {"exemption_reason": ""}
    given["property_address"] = ""
    made = api.post("/v1/deeds/grant", given)
    assert made.status_code == 200
    order = Deed.objects.get().order
    assert order["recording"] == {"requested_by": "Acme Title", "return_to": {"name": "Bob Jones"}}
    assert "exemption_reason" not in order["transfer_tax"]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        (lambda data: data.update(apn=""), "/data/apn"),
        (lambda data: data.update(vesting=""), "/data/vesting"),
        (lambda data: data["dtt"].update(basis=""), "/data/dtt/basis"),
        (lambda data: data["dtt"].update(city_name=""), "/data/dtt/city_name"),
    ],
)
def test_an_empty_text_fills_in_nothing(api: Api, change: Any, pointer: str) -> None:
    given = body()
    change(given["data"])
    answer = api.post("/v1/deeds/grant", given)
    assert errors_of(answer) == {pointer: "required"}
    assert not Deed.objects.exists()


@pytest.mark.parametrize("number", ["1e2000000000", "1e-2000000000", "0e2000000000", "-1e999999999999999999"])
def test_a_number_of_twenty_bytes_is_not_written_out(api: Api, number: str) -> None:
    given = body(transfer_value="NUMBER")
    given["data"]["dtt"]["amount"] = "NUMBER"
    text = json.dumps(given).replace('"NUMBER"', number).encode()
    tracemalloc.start()
    try:
        answer = api.post("/v1/deeds/grant", text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert errors_of(answer) == {"/data/dtt/amount": "invalid_type", "/data/transfer_value": "invalid_type"}
    assert peak < 50 << 20
    assert errors_of(api.post("/v2/deeds", text.replace(b"data", b"metadata")))


def test_the_same_parties_in_two_places_are_taken(api: Api, settings: Any) -> None:
    settings.V1_WAIT_SECONDS = 0
    given = body(grantors=[{"name": "ALICE SMITH"}, {"name": "CAROL SMITH"}], grantees_text="BOB JONES")
    assert api.post("/v1/deeds/grant", given).status_code == 202
    assert Deed.objects.get().order["grantors"] == [{"name": "ALICE SMITH"}, {"name": "CAROL SMITH"}]


def test_a_layout_is_taken_and_said_to_be_of_no_use(api: Api, settings: Any) -> None:
    settings.V1_WAIT_SECONDS = 0
    given = body(page={"size": "legal"}, recorder_profile="la", exhibit_threshold=700)
    assert api.post("/v1/deeds/grant", given).status_code == 202
    assert [(one["pointer"], one["code"]) for one in Deed.objects.get().warnings] == [
        ("/data/page", "not_used"),
        ("/data/recorder_profile", "not_used"),
        ("/data/exhibit_threshold", "not_used"),
    ]


def test_an_unknown_type_says_which_there_are(api: Api) -> None:
    answer = api.post("/v1/deeds/grant-deed", body())
    assert answer.status_code == 404
    assert "quitclaim" in answer.json()["detail"]


def test_beyond_the_seats_a_request_does_not_wait(api: Api, order: Orders, db: None) -> None:
    deed = Deed.objects.get(pk=api.post("/v2/deeds", order()).json()["id"])
    taken = threading.BoundedSemaphore(1)
    taken.acquire()
    seats, waiting._seats = waiting._seats, taken
    try:
        assert waiting.wait_for(deed, seconds=60).status == "queued"
    finally:
        waiting._seats = seats
