"""Bodies and queries of the webhook API, read strictly: unknown members are errors that suggest."""

import datetime as dt
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)
from pydantic_core import PydanticCustomError
from rest_framework.request import Request

from partner_api.http.pagination import MAX_LIMIT
from partner_api.http.parsing import pointer_to
from partner_api.http.problems import FieldError, invalid
from partner_api.http.suggestions import suggest
from webhooks import addresses
from webhooks.event_types import PATTERNS, why_no_pattern

Model = TypeVar("Model", bound=BaseModel)


def _pattern(value: str) -> str:
    reason = why_no_pattern(value)
    if reason is not None:
        raise PydanticCustomError("unknown_event_type", "{reason}", {"reason": reason})
    return value


def _in_utc(value: dt.datetime) -> dt.datetime:
    try:
        return value.astimezone(dt.UTC)
    except OverflowError:
        return value.replace(tzinfo=dt.UTC)


def _moment(value: Any) -> Any:
    """A number would be read as Unix time; a moment is text with its zone."""
    if not isinstance(value, str):
        raise PydanticCustomError("invalid_value", _TIME)
    return value


def _plain(value: str) -> str:
    if any(ord(character) < ord(" ") for character in value):
        raise PydanticCustomError("invalid_characters", "It must not have control characters.")
    return value


_TIME = "It must be a time in RFC 3339, with its zone: 2026-11-24T08:00:00Z."
Pattern = Annotated[
    str, AfterValidator(_pattern), Field(json_schema_extra={"enum": list(PATTERNS), "type": "string"})
]
Url = Annotated[str, Field(min_length=1, max_length=addresses.MAX_URL_LENGTH)]
EventTypes = Annotated[
    list[Pattern], Field(min_length=1, max_length=len(PATTERNS), description="Types, `deed.*`, or `*`.")
]
Description = Annotated[str, Field(max_length=200), AfterValidator(_plain)]
Moment = Annotated[AwareDatetime, BeforeValidator(_moment), AfterValidator(_in_utc)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EndpointBody(Body):
    """A new endpoint."""

    url: Url = Field(description="https, with a public address; ports 443 and 8443.")
    event_types: EventTypes = Field(default=["*"])
    description: Description = ""


class EndpointChange(Body):
    """What is to change; the rest stays."""

    url: Url | None = None
    event_types: EventTypes | None = None
    description: Description | None = None
    enabled: Annotated[bool, Field(strict=True)] | None = Field(
        None, description="true also clears its record of failures."
    )


class ReplayBody(Body):
    """From when on events are sent once more."""

    since: Moment
    undelivered_only: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="Leave out those that the endpoint has received."
    )


class Page(Body):
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None = None
    cursor: str | None = Field(None, description="From `next` or `previous` of another page.")


class EventQuery(Page):
    type: Pattern | None = None


class DeliveryQuery(Page):
    endpoint: UUID | None = None
    event: UUID | None = None
    status: Literal["pending", "sending", "succeeded", "failed", "cancelled"] | None = None

    def filters(self) -> dict[str, Any]:
        given = {"endpoint": self.endpoint, "event": self.event, "status": self.status}
        return {name: value for name, value in given.items() if value is not None}


def read_body(model: type[Model], body: Any) -> Model:
    """Raises Problem `validation_error`."""
    if not isinstance(body, dict):
        raise invalid([FieldError("", "invalid_type", "The body must be a JSON object.")])
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise invalid([_error(model, detail, "body") for detail in error.errors()]) from error


def read_query(model: type[Model], request: Request) -> Model:
    """Raises Problem `validation_error` that names the parameter."""
    given = request.query_params
    repeated = [name for name in given if len(given.getlist(name)) > 1]
    if repeated:
        raise invalid(
            [FieldError(pointer_to("", name), "repeated", "Give it once.", "query") for name in repeated]
        )
    try:
        return model.model_validate(given.dict())
    except ValidationError as error:
        raise invalid([_error(model, detail, "query") for detail in error.errors()]) from error


def check_url(url: str) -> None:
    """Looks the name up. Raises Problem `validation_error`."""
    try:
        addresses.check(url)
    except addresses.Refused as reason:
        raise invalid([FieldError("/url", "url_refused", str(reason))]) from reason


def _error(model: type[BaseModel], detail: Any, where: str) -> FieldError:
    pointer = ""
    for part in detail["loc"]:
        pointer = pointer_to(pointer, part)
    code, message = "invalid_value", f"{detail['msg']}."
    match detail["type"]:
        case "extra_forbidden":
            what, code = ("field", "unknown_field") if where == "body" else ("parameter", "unknown_parameter")
            name = str(detail["loc"][-1])
            message = f"There is no {what} {name[:60]!r} here; {suggest(name, list(model.model_fields))}"
        case "missing":
            code, message = "required", "It is required."
        case "unknown_event_type" | "invalid_characters":
            code, message = detail["type"], detail["msg"]
        case "string_too_long":
            code, message = "too_long", f"It has more than {detail['ctx']['max_length']:,} characters."
        case "too_short" | "string_too_short":
            code, message = "required", "It is empty."
        case "too_long":
            code, message = "too_many", f"It has more than {detail['ctx']['max_length']} entries."
        case "string_type" | "list_type" | "bool_type":
            kind = {"s": "text", "l": "a list", "b": "true or false"}[detail["type"][0]]
            code, message = "invalid_type", f"It must be {kind}."
        case "literal_error":
            message = f"It must be {detail['ctx']['expected']}."
        case kind if kind == "invalid_value" or kind.startswith(("datetime", "timezone")):
            message = _TIME
        case kind if detail["loc"][-1] == "limit":
            message = f"It must be a whole number from 1 to {MAX_LIMIT}."
    return FieldError(pointer, code, message, where)
