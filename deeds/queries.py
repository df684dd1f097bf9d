"""What may stand in a list's query and around a batch, read as strictly as an order."""

import datetime as dt
from typing import Annotated, Any, Literal

from django.db.models import QuerySet
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)
from rest_framework.request import Request

from deeds.fields import Text100
from deeds.models import Deed
from partner_api.http.pagination import MAX_LIMIT
from partner_api.http.parsing import pointer_to
from partner_api.http.problems import FieldError, invalid
from partner_api.http.suggestions import suggest

MAX_BATCH = 500

DeedTypeName = Literal["grant", "quitclaim", "interspousal", "warranty", "tax"]


def _boolean(value: Any) -> Any:
    return {"true": True, "false": False}.get(value, value)


def _in_utc(value: dt.datetime) -> dt.datetime:
    """Postgres knows fewer offsets than RFC 3339; the ends of Python's calendar have no other zone."""
    try:
        return value.astimezone(dt.UTC)
    except OverflowError:
        return value.replace(tzinfo=dt.UTC)


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class DeedQuery(BaseModel):
    """The filters of a list of deeds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Literal["queued", "rendering", "completed", "failed", "cancelled"] | None = None
    deed_type: DeedTypeName | None = None
    order_id: Text100 | None = None
    created_after: Moment | None = Field(None, description="RFC 3339; this moment excluded.")
    created_before: Moment | None = Field(None, description="RFC 3339; this moment excluded.")
    livemode: Annotated[bool, BeforeValidator(_boolean)] | None = Field(
        None, description="A key sees its own mode only; the other one's list is empty."
    )
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None = None
    cursor: str | None = Field(None, description="From `next` or `previous` of another page.")

    def narrow(self, deeds: QuerySet[Deed]) -> QuerySet[Deed]:
        """The deeds that fit all filters given."""
        wanted = {
            "status": self.status,
            "deed_type": self.deed_type,
            "order_id": self.order_id,
            "created_at__gt": self.created_after,
            "created_at__lt": self.created_before,
            "livemode": self.livemode,
        }
        return deeds.filter(**{name: value for name, value in wanted.items() if value is not None})


class BatchBody(BaseModel):
    """Orders, each as `POST /v2/deeds` takes it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    orders: list[Any] = Field(min_length=1, max_length=MAX_BATCH)


def parse_query(request: Request) -> DeedQuery:
    """Raises Problem `validation_error` that names the parameter."""
    given = request.query_params
    repeated = [name for name in given if len(given.getlist(name)) > 1]
    if repeated:
        raise invalid([_in_query(name, "repeated", "Give it once.") for name in repeated])
    try:
        return DeedQuery.model_validate(given.dict())
    except ValidationError as error:
        raise invalid([_query_error(detail) for detail in error.errors()]) from error


def parse_batch(body: Any) -> list[Any]:
    """The orders, unread. Raises Problem `validation_error`."""
    if not isinstance(body, dict) or "orders" not in body:
        raise invalid([FieldError("/orders", "required", 'Send {"orders": [order, …]}.')])
    unknown = [name for name in body if name != "orders"]
    if unknown:
        message = "There is no such field here; did you mean 'orders'?"
        raise invalid([FieldError(pointer_to("", unknown[0]), "unknown_field", message)])
    orders = body["orders"]
    if not isinstance(orders, list):
        raise invalid([FieldError("/orders", "invalid_type", "It must be a list of orders.")])
    if not 1 <= len(orders) <= MAX_BATCH:
        message = f"It has {len(orders)} orders; a batch has 1 to {MAX_BATCH}."
        raise invalid([FieldError("/orders", "too_many" if orders else "required", message)])
    return orders


def _query_error(detail: Any) -> FieldError:
    name = str(detail["loc"][0])
    match detail["type"]:
        case "extra_forbidden":
            known = list(DeedQuery.model_fields)
            message = f"There is no such parameter; {suggest(name, known)}"
            return _in_query(name, "unknown_parameter", message)
        case "literal_error":
            message = f"It must be {detail['ctx']['expected']}."
        case "bool_parsing" | "bool_type":
            message = "It must be true or false."
        case kind if kind.startswith(("datetime", "timezone")):
            message = "It must be a time in RFC 3339, with its zone: 2026-11-24T08:00:00Z."
        case kind if name == "limit":
            message = f"It must be a whole number from 1 to {MAX_LIMIT}."
        case _:
            message = f"{detail['msg']}."
    return _in_query(name, "invalid_value", message)


def _in_query(name: str, code: str, message: str) -> FieldError:
    return FieldError(pointer_to("", name), code, message, where="query")
