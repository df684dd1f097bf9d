"""The five deeds that can be ordered: their names, where the Main API makes them, what each uses."""

import difflib
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from deeds import order


@dataclass(frozen=True)
class DeedType:
    """One entry. `path` is a fact of the Main API, never made from the slug by formatting.

    `unused` are the facts an order may carry that this deed does not show, by their paths.
    """

    slug: str
    title: str
    path: str
    order_class: type[order.Order]
    unused: frozenset[str]
    example_facts: dict[str, Any]

    @property
    def example(self) -> dict[str, Any]:
        """An order of this type that is accepted as it stands."""
        return {"deed_type": self.slug, **_EXAMPLE, **self.example_facts}

    @property
    def required(self) -> list[str]:
        """JSON Pointers of the facts without which the deed would have a blank."""
        return _required(self.json_schema())

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of an order of this type, complete in itself."""
        return _json_schema(self.slug)


_EXAMPLE: Final[dict[str, Any]] = {
    "order_id": "ORD-123",
    "property": {
        "address": "123 Main St, La Verne, CA 91750",
        "county": "Los Angeles",
        "apn": "8381-021-001",
        "legal_description": (
            "LOT 1 OF TRACT NO. 6654, IN THE CITY OF LA VERNE, COUNTY OF LOS ANGELES, STATE OF "
            "CALIFORNIA, AS PER MAP RECORDED IN BOOK 71, PAGE 51 OF MAPS."
        ),
    },
    "grantors": [{"name": "ALICE SMITH, an unmarried woman"}],
    "grantees": [{"name": "BOB JONES"}],
    "recording": {
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
    },
    "execution_date": "2026-11-24",
    "metadata": {"branch": "Pasadena"},
}
_TAXED: Final = {
    "exempt": False,
    "amount": "825.00",
    "basis": "full_value",
    "area_type": "city",
    "city_name": "La Verne",
    "transfer_value": "750000.00",
}
# What an exempt transfer may state beside its reason.
_DECLARED: Final = [
    f"transfer_tax/{name}" for name in ("amount", "basis", "area_type", "city_name", "transfer_value")
]

DEED_TYPES: Final = {
    deed_type.slug: deed_type
    for deed_type in (
        DeedType(
            "grant",
            "Grant deed",
            "/api/generate/grant-deed-ca",
            order.GrantOrder,
            frozenset({"covenants", "tax_sale_ref"}),
            {"vesting": "a single man", "transfer_tax": _TAXED},
        ),
        DeedType(
            "quitclaim",
            "Quitclaim deed",
            "/api/generate/quitclaim-deed-ca",
            order.QuitclaimOrder,
            frozenset({"covenants", "tax_sale_ref", "transfer_tax/transfer_value"}),
            {
                "vesting": "a single man",
                "transfer_tax": {"exempt": True, "exemption_reason": "R&T 11930: gift"},
            },
        ),
        DeedType(
            "interspousal",
            "Interspousal transfer deed",
            "/api/generate/interspousal-transfer-ca",
            order.InterspousalOrder,
            frozenset({"vesting", "covenants", "tax_sale_ref", *_DECLARED}),
            {
                "transfer_tax": {
                    "exempt": True,
                    "exemption_reason": "R&T 11927: transfer between spouses",
                }
            },
        ),
        DeedType(
            "warranty",
            "Warranty deed",
            "/api/generate/warranty-deed-ca",
            order.WarrantyOrder,
            frozenset({"tax_sale_ref", "transfer_tax/transfer_value"}),
            {
                "vesting": "a single man",
                "transfer_tax": {k: v for k, v in _TAXED.items() if k != "transfer_value"},
                "covenants": "Grantor covenants that the property is free of liens.",
            },
        ),
        DeedType(
            "tax",
            "Tax deed",
            "/api/generate/tax-deed-ca",
            order.TaxOrder,
            frozenset({"transfer_tax", "covenants"}),
            {
                "grantors": [{"name": "TAX COLLECTOR OF LOS ANGELES COUNTY"}],
                "vesting": "a single man",
                "tax_sale_ref": "2026-A item 17",
            },
        ),
    )
}


def nearest(slug: str) -> str | None:
    """The type most likely meant by a name that is none."""
    near = difflib.get_close_matches(slug.lower(), DEED_TYPES, n=1, cutoff=0.5)
    return near[0] if near else None


@cache
def _json_schema(slug: str) -> dict[str, Any]:
    deed_type = DEED_TYPES[slug]
    schema = deed_type.order_class.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = f"Order of a {deed_type.title.lower()}"
    return schema


def _required(schema: dict[str, Any]) -> list[str]:
    top = [f"/{name}" for name in schema["required"]]
    of_property = [f"/property/{name}" for name in schema["$defs"]["Property"]["required"]]
    return top + of_property
