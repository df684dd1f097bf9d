"""From an order to the Main API's body: the same facts, in its names, and nothing made up."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from deeds import mapping, reading
from deeds.catalog import DEED_TYPES
from deeds.counties import COUNTIES
from deeds.reading import statutory_county_tax


def mapped(order: dict[str, Any]) -> dict[str, Any]:
    read = reading.read(order)
    return mapping.main_api_body(read.deed_type, read.order)


COMMON = {
    "requested_by": "Acme Title",
    "title_company": "Acme Title",
    "escrow_no": "E-1",
    "title_order_no": "T-1",
    "return_to": {
        "name": "Bob Jones",
        "address1": "123 Main St",
        "city": "La Verne",
        "state": "CA",
        "zip": "91750",
    },
    "apn": "8381-021-001",
    "county": "Los Angeles",
    "legal_description": DEED_TYPES["grant"].example["property"]["legal_description"],
    "property_address": "123 Main St, La Verne, CA 91750",
    "grantors_text": "ALICE SMITH, an unmarried woman",
    "grantees_text": "BOB JONES",
    "execution_date": "2026-11-24",
}
TAXED = {
    "amount": "825.00",
    "basis": "full_value",
    "area_type": "city",
    "city_name": "La Verne",
    "is_exempt": False,
}


@pytest.mark.parametrize(
    ("deed_type", "own"),
    [
        ("grant", {"vesting": "a single man", "dtt": TAXED, "transfer_value": 750000}),
        (
            "quitclaim",
            {
                "vesting": "a single man",
                "dtt": {"amount": "0.00", "is_exempt": True, "exemption_reason": "R&T 11930: gift"},
            },
        ),
        ("interspousal", {"dtt_exempt_reason": "R&T 11927: transfer between spouses"}),
        (
            "warranty",
            {
                "vesting": "a single man",
                "dtt": TAXED,
                "covenants": "Grantor covenants that the property is free of liens.",
            },
        ),
        (
            "tax",
            {
                "vesting": "a single man",
                "tax_sale_ref": "2026-A item 17",
                "grantors_text": "TAX COLLECTOR OF LOS ANGELES COUNTY",
            },
        ),
    ],
)
def test_each_type_has_its_facts_and_no_others(order: Any, deed_type: str, own: dict[str, Any]) -> None:
    assert mapped(order(deed_type)) == COMMON | own


def test_a_type_without_a_mapping_is_not_rendered(order: Any) -> None:
    sixth = replace(DEED_TYPES["grant"], slug="easement")
    with pytest.raises(NotImplementedError, match="easement"):
        mapping.main_api_body(sixth, reading.read(order()).order)


def test_the_paths_are_the_main_apis_own() -> None:
    assert {slug: entry.path for slug, entry in DEED_TYPES.items()} == {
        "grant": "/api/generate/grant-deed-ca",
        "quitclaim": "/api/generate/quitclaim-deed-ca",
        "interspousal": "/api/generate/interspousal-transfer-ca",
        "warranty": "/api/generate/warranty-deed-ca",
        "tax": "/api/generate/tax-deed-ca",
    }


def test_several_parties_are_split_by_semicolons(order: Any) -> None:
    parties = [{"name": " ALICE SMITH "}, {"name": "CAROL SMITH"}]
    assert mapped(order(grantors=parties))["grantors_text"] == "ALICE SMITH; CAROL SMITH"


def test_what_is_not_given_is_not_sent(order: Any) -> None:
    bare = order()
    del bare["recording"], bare["execution_date"], bare["property"]["address"]
    del bare["transfer_tax"]["transfer_value"]
    sent = mapped(bare)
    assert set(sent) == {
        "apn",
        "county",
        "legal_description",
        "grantors_text",
        "grantees_text",
        "vesting",
        "dtt",
    }


@pytest.mark.parametrize(("given", "sent"), [("825", "825.00"), ("825.5", "825.50"), ("0", "0.00")])
def test_money_is_sent_with_two_places(order: Any, given: str, sent: str) -> None:
    tax = order()["transfer_tax"] | {"amount": given}
    assert mapped(order(transfer_tax=tax))["dtt"]["amount"] == sent


def test_the_county_is_sent_by_its_name(order: Any) -> None:
    given = order()
    given["property"]["county"] = "san luis obispo county"
    assert mapped(given)["county"] == "San Luis Obispo"


def test_the_order_is_not_changed(order: Any) -> None:
    given = order()
    mapped(given)
    assert given == order()


def test_california_has_58_counties() -> None:
    assert len(set(COUNTIES)) == 58
    assert list(COUNTIES) == sorted(COUNTIES)


@pytest.mark.parametrize(
    ("value", "tax"),
    [
        ("0", "0.00"),
        ("100", "0.00"),
        ("100.01", "0.55"),
        ("500", "0.55"),
        ("500.01", "1.10"),
        ("1000", "1.10"),
        ("750000", "825.00"),
        ("750000.01", "825.55"),
    ],
)
def test_the_county_tax_is_55_cents_for_each_500_begun(value: str, tax: str) -> None:
    assert statutory_county_tax(Decimal(value)) == Decimal(tax)
