"""The body of an order, a class for each deed type: what must be there, what may, in which form.

The classes are the one definition: they validate, they give the JSON Schemas of the catalog, and the
OpenAPI document is made from them. An order itself is kept as the partner gave it.
"""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter, WithJsonSchema

from deeds.fields import (
    County,
    Date,
    LegalDescription,
    Lines2000,
    Money,
    No,
    ParcelNumber,
    PartyName,
    StateCode,
    Text60,
    Text100,
    Text300,
    Text500,
    Yes,
    ZipCode,
)

MAX_PARTIES = 100


class Strict(BaseModel):
    """Refuses unknown members, and never turns one type into another."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Party(Strict):
    """A grantor or a grantee."""

    name: PartyName = Field(description="Name and status, as it is to stand on the deed.")


class Property(Strict):
    """What is conveyed."""

    address: Text300 | None = None
    county: County
    apn: ParcelNumber = Field(description="Assessor's parcel number.")
    legal_description: LegalDescription


class ReturnTo(Strict):
    """To whom the recorder mails the recorded deed."""

    name: Text300 | None = None
    company: Text300 | None = None
    address1: Text300 | None = None
    address2: Text300 | None = None
    city: Text100 | None = None
    state: StateCode | None = None
    zip: ZipCode | None = None


class Recording(Strict):
    """The recording block."""

    requested_by: Text300 | None = None
    title_company: Text300 | None = None
    escrow_no: Text60 | None = None
    title_order_no: Text60 | None = None
    return_to: ReturnTo | None = None


class ExemptTransfer(Strict):
    """A transfer declared exempt from documentary transfer tax; the reason is the partner's."""

    exempt: Yes
    exemption_reason: Text300 = Field(
        description="The exemption claimed, such as a section of the Revenue and Taxation Code."
    )
    amount: Money | None = None
    basis: Literal["full_value", "less_liens"] | None = None
    area_type: Literal["city", "unincorporated"] | None = None
    city_name: Text100 | None = None
    transfer_value: Money | None = None


class _TaxedTransfer(Strict):
    exempt: No
    exemption_reason: None = None
    amount: Money = Field(description="The tax declared, in dollars.")
    basis: Literal["full_value", "less_liens"] = Field(
        description="Computed on the full value, or less liens remaining at the time of sale."
    )
    transfer_value: Money | None = None


class CityTransfer(_TaxedTransfer):
    """A taxed transfer of property within a city."""

    area_type: Literal["city"]
    city_name: Text100


class UnincorporatedTransfer(_TaxedTransfer):
    """A taxed transfer of property in an unincorporated area."""

    area_type: Literal["unincorporated"]
    city_name: Text100 | None = None


TRANSFER_TAGS = ("exempt_transfer", "city_transfer", "unincorporated_transfer")


def _transfer_tag(value: Any) -> str:
    """Which of the three a declaration is meant as; the one chosen then says what it lacks."""
    if not isinstance(value, dict):
        return "city_transfer"
    if value.get("exempt") is True:
        return "exempt_transfer"
    is_outside = value.get("area_type") == "unincorporated"
    return "unincorporated_transfer" if is_outside else "city_transfer"


TransferTax = Annotated[
    Annotated[ExemptTransfer, Tag("exempt_transfer")]
    | Annotated[CityTransfer, Tag("city_transfer")]
    | Annotated[UnincorporatedTransfer, Tag("unincorporated_transfer")],
    Discriminator(_transfer_tag),
]

_KEY = r"^[A-Za-z0-9_.-]{1,40}$"
MetadataKey = Annotated[str, Field(pattern=_KEY)]
_METADATA = WithJsonSchema(
    {
        "type": "object",
        "description": "Your own notes, given back as they are.",
        "propertyNames": {"pattern": _KEY},
        "additionalProperties": TypeAdapter(Text500).json_schema(),
        "maxProperties": 20,
    }
)


class Order(Strict):
    """What all five types share."""

    deed_type: str
    order_id: Text100 = Field(description="Your number of this order. With the deed type it names one deed.")
    property: Property
    grantors: list[Party] = Field(min_length=1, max_length=MAX_PARTIES)
    grantees: list[Party] = Field(min_length=1, max_length=MAX_PARTIES)
    vesting: Text500 | None = Field(None, description="How the grantees hold title.")
    transfer_tax: TransferTax | None = None
    recording: Recording | None = None
    execution_date: Date | None = None
    covenants: Lines2000 | None = None
    tax_sale_ref: Text100 | None = None
    metadata: Annotated[dict[MetadataKey, Text500], Field(max_length=20), _METADATA] | None = None
    reissue_of: (
        Annotated[UUID, Field(strict=False), WithJsonSchema({"type": "string", "format": "uuid"})] | None
    ) = Field(None, description="The deed that this corrected order replaces.")


class GrantOrder(Order):
    deed_type: Literal["grant"]
    vesting: Text500 = Field(description="How the grantees hold title.")
    transfer_tax: TransferTax


class QuitclaimOrder(Order):
    deed_type: Literal["quitclaim"]
    transfer_tax: TransferTax


class InterspousalOrder(Order):
    deed_type: Literal["interspousal"]
    transfer_tax: ExemptTransfer = Field(
        description="Exempt, with its reason: Revenue and Taxation Code section 11927 or another."
    )


class WarrantyOrder(Order):
    deed_type: Literal["warranty"]
    vesting: Text500 = Field(description="How the grantees hold title.")
    transfer_tax: TransferTax
    covenants: Lines2000 | None = Field(None, description="Covenants beyond the statutory ones.")


class TaxOrder(Order):
    deed_type: Literal["tax"]
    tax_sale_ref: Text100 = Field(description="The reference of the tax sale.")
