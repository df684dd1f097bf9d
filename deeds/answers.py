"""How a deed looks from outside, in v2 and in v1, and the classes that document it."""

import datetime as dt
from typing import Any, Literal
from uuid import UUID

from django.utils import timezone
from pydantic import BaseModel, Field

from deeds import storage
from deeds.models import Deed
from partner_api.http.times import rfc3339

DELETED = "The PDF was kept as long as agreed and then deleted; the deed's facts are still there."

Status = Literal["queued", "rendering", "completed", "failed", "cancelled"]


def v2(deed: Deed) -> dict[str, Any]:
    """The deed as v2 answers it. A completed one gets a fresh link."""
    return {
        "id": str(deed.pk),
        "object": "deed",
        "livemode": deed.livemode,
        "status": deed.status,
        "order_id": deed.order_id,
        "deed_type": deed.deed_type,
        "order": deed.order,
        "warnings": deed.warnings,
        "pdf": _pdf(deed),
        "failure": _failure(deed),
        "reissue_of": _text(deed.reissue_of_id),
        "timeline": deed.timeline,
        "created_at": rfc3339(deed.created_at),
        "completed_at": rfc3339(deed.completed_at),
    }


def v1(deed: Deed) -> dict[str, Any]:
    """The deed as the first version answered it."""
    return {
        "external_deed_id": str(deed.pk),
        "partner": deed.partner.name,
        "order_id": deed.order_id,
        "deed_type": deed.deed_type,
        "property_address": deed.order["property"].get("address"),
        "pdf_url": pdf_url(deed),
        "status": deed.status,
        "created_at": rfc3339(deed.created_at),
    }


def v1_created(deed: Deed) -> dict[str, Any]:
    """The first version's answer to an order."""
    return {
        "external_deed_id": str(deed.pk),
        "pdf_url": pdf_url(deed),
        "status": deed.status,
        "order_id": deed.order_id,
    }


def pdf_url(deed: Deed) -> str | None:
    """A fresh link to the PDF, or None while there is none, and once it was deleted."""
    if not deed.has_pdf:
        return None
    return storage.link_to(deed, now=timezone.now()).url


def _pdf(deed: Deed) -> dict[str, Any] | None:
    if deed.status != Deed.Status.COMPLETED:
        return None
    link = storage.link_to(deed, now=timezone.now()) if deed.has_pdf else None
    return {
        "url": link.url if link else None,
        "expires_at": rfc3339(link.expires_at) if link else None,
        "deleted_at": rfc3339(deed.pdf_deleted_at),
        "sha256": deed.pdf_sha256,
        "pages": deed.pdf_pages,
        "bytes": deed.pdf_bytes,
    }


def _failure(deed: Deed) -> dict[str, Any] | None:
    if deed.status != Deed.Status.FAILED:
        return None
    return {
        "code": deed.failure_code,
        "message": deed.failure_message,
        "retryable": deed.failure_retryable,
        "errors": deed.failure_errors,
    }


def _text(value: UUID | None) -> str | None:
    return str(value) if value else None


class Warning(BaseModel):  # noqa: A001 - the API's word
    """Something allowed, but likely not meant."""

    pointer: str
    code: Literal["not_used", "differs_from_statutory_tax"]
    message: str


class Pdf(BaseModel):
    url: str | None = Field(
        description="Works without a key until it expires; read the deed for another. "
        "Null once the PDF was deleted."
    )
    expires_at: dt.datetime | None
    deleted_at: dt.datetime | None = Field(
        description="When the PDF was deleted, having been kept as long as agreed."
    )
    sha256: str
    pages: int
    bytes: int


class FailureError(BaseModel):
    pointer: str = Field(description="JSON Pointer into the order; empty for the order as a whole.")
    code: Literal["refused_by_renderer"]
    message: str


class Failure(BaseModel):
    code: str = Field(
        description="`main_api_rejected`: the renderer refused the order, see `errors`; `order_refused`: our "
        "checks do today. `main_api_unavailable`, `main_api_timeout`, `main_api_busy`: it was out of reach "
        "for a day; `storage_unavailable`: the PDF could not be stored. `invalid_pdf`, `pdf_too_large`: what "
        "was rendered is not the deed, or too large. `renderer_crashed`: a fault of ours."
    )
    message: str
    retryable: bool = Field(description="Whether the same order may succeed later.")
    errors: list[FailureError] = Field(description="Facts of the order that the renderer refused.")


class TimelineEntry(BaseModel):
    status: Status
    at: dt.datetime
    detail: str | None = None


class DeedAnswer(BaseModel):
    """A deed."""

    id: UUID
    object: Literal["deed"]
    livemode: bool
    status: Status
    order_id: str
    deed_type: str
    order: dict[str, Any] = Field(description="The order as it was given.")
    warnings: list[Warning]
    pdf: Pdf | None
    failure: Failure | None
    reissue_of: UUID | None
    timeline: list[TimelineEntry]
    created_at: dt.datetime
    completed_at: dt.datetime | None


class DeedPage(BaseModel):
    """A page of deeds, newest first."""

    data: list[DeedAnswer]
    next: str | None
    previous: str | None


class ValidationAnswer(BaseModel):
    """An order that would be accepted."""

    valid: Literal[True]
    errors: list[dict[str, str]] = Field(max_length=0)
    warnings: list[Warning]


class DeedTypeAnswer(BaseModel):
    deed_type: str
    title: str
    required: list[str] = Field(description="JSON Pointers of the facts that must be there.")
    unused: list[str] = Field(description="Facts that this deed does not show.")
    json_schema: dict[str, Any]
    example: dict[str, Any]


class DeedTypeList(BaseModel):
    data: list[DeedTypeAnswer]
    next: None
    previous: None


class V1Created(BaseModel):
    external_deed_id: UUID
    pdf_url: str | None
    status: Status
    order_id: str


class V1Deed(BaseModel):
    external_deed_id: UUID
    partner: str
    order_id: str
    deed_type: str
    property_address: str | None
    pdf_url: str | None
    status: Status
    created_at: dt.datetime
