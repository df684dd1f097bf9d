"""What only the OpenAPI document needs: bodies as unions, headers, examples."""

from typing import Annotated, Any, Literal

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter
from pydantic import BaseModel, ConfigDict, Discriminator, Field, RootModel

from deeds import answers, order
from deeds.catalog import DEED_TYPES
from deeds.queries import DeedQuery
from partner_api.http.schema import ProblemAnswer


class OrderBody(
    RootModel[
        Annotated[
            order.GrantOrder
            | order.QuitclaimOrder
            | order.InterspousalOrder
            | order.WarrantyOrder
            | order.TaxOrder,
            Discriminator("deed_type"),
        ]
    ]
):
    """An order. What must be there follows from `deed_type`; see `GET /v2/deed-types`."""


class BatchItem(BaseModel):
    """What became of one order: `deed` when it was accepted, else `problem`."""

    status: Literal[200, 202, 402, 409, 422, 429]
    deed: answers.DeedAnswer | None = None
    problem: ProblemAnswer | None = None


class BatchAnswer(BaseModel):
    data: list[BatchItem]


class V1Parties(BaseModel):
    model_config = ConfigDict(extra="forbid")

    grantor: str | list[str] | None = Field(None, description="Text, or a list of texts.")
    grantee: str | list[str] | None = None


class V1Order(BaseModel):
    """The first version's body. `data` takes v2's fields, or the Main API's own names; an empty text in
    it is a field left out."""

    model_config = ConfigDict(extra="forbid")

    order_id: str
    property_address: str | None = None
    parties: V1Parties
    data: dict[str, Any]


def _header(name: str, description: str, statuses: list[int]) -> OpenApiParameter:
    return OpenApiParameter(
        name,
        OpenApiTypes.STR,
        OpenApiParameter.HEADER,
        description=description,
        response=[str(status) for status in statuses],
    )


LOCATION = _header("Location", "Where the deed can be read.", [200, 201, 202])
REPLAYED = _header("Idempotent-Replayed", "`true`: this order had been placed before.", [200])
V1_LOCATION = _header("Location", "Where the deed can be read.", [202])
_ORDERED = [200, 201, 202, 207, 402]
QUOTA = [
    _header("X-Quota-Limit", "Deeds in this period, where the partner has a quota.", _ORDERED),
    _header("X-Quota-Remaining", "Deeds that are left of them.", _ORDERED),
    _header("X-Quota-Reset", "When the next period starts, in Unix seconds.", _ORDERED),
]
PREFERENCE_APPLIED = _header(
    "Preference-Applied", "`wait=N`: for how long it was waited at the most.", [200, 201, 202]
)
PDF_LOCATION = _header("Location", "The link to the PDF.", [302])
FILE_LOCATION = _header("Location", "The storage's own address of the PDF.", [302])
FILE_NAME = _header("Content-Disposition", "An attachment, with the name to save it under.", [200])

# drf-spectacular takes a pydantic model here as it takes a serializer; its types don't know.
DEED_QUERY: list[Any] = [DeedQuery]

ORDER_EXAMPLES = [
    OpenApiExample(deed_type.title, deed_type.example, request_only=True) for deed_type in DEED_TYPES.values()
]
BATCH_EXAMPLES = [OpenApiExample("One order", {"orders": [DEED_TYPES["grant"].example]}, request_only=True)]
_GRANT = DEED_TYPES["grant"].example
V1_EXAMPLES = [
    OpenApiExample(
        "Grant deed",
        {
            "order_id": "ORD-123",
            "property_address": _GRANT["property"]["address"],
            "parties": {"grantor": _GRANT["grantors"][0]["name"], "grantee": ["BOB JONES"]},
            "data": {
                "county": "Los Angeles",
                "apn": _GRANT["property"]["apn"],
                "legal_description": _GRANT["property"]["legal_description"],
                "vesting": "a single man",
                "dtt": {
                    "amount": "825.00",
                    "basis": "full_value",
                    "area_type": "city",
                    "city_name": "La Verne",
                    "is_exempt": False,
                },
                "requested_by": "Acme Title",
            },
        },
        request_only=True,
    )
]
