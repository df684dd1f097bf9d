"""What a partner may send about its keys, read as strictly as an order; and how a key looks from outside."""

import datetime as dt
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from django.core.exceptions import ValidationError as ModelError
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from keys.models import ApiKey
from keys.scopes import GRANTABLE, why_not_grantable
from partner_api.http.parsing import pointer_to
from partner_api.http.problems import FieldError, invalid
from partner_api.http.suggestions import suggest

Name = Annotated[str, Field(min_length=1, max_length=100)]
Rate = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
# Which of them exist is checked, with a suggestion, by `read`.
Scopes = Annotated[list[str], Field(json_schema_extra={"items": {"type": "string", "enum": list(GRANTABLE)}})]
Moment = Annotated[AwareDatetime, Field(description="RFC 3339, with its zone.")]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class NewKey(Body):
    """A key for the partner's own mode; it can't have what the asking key has not."""

    name: Name = Field(description="What the key is for.")
    scopes: Scopes = Field(default_factory=list, description="None unless given.")
    rate_limit_per_minute: Rate | None = None
    rate_limit_burst: Rate | None = None
    allowed_cidrs: list[str] = Field(
        default_factory=list, description="Such as 203.0.113.0/24; none for all."
    )
    not_before: Moment | None = None
    expires_at: Moment | None = None


class KeyChange(Body):
    """Only what is sent is changed."""

    name: Name | None = None
    scopes: Scopes | None = None
    rate_limit_per_minute: Rate | None = None
    rate_limit_burst: Rate | None = None
    allowed_cidrs: list[str] | None = None
    expires_at: Moment | None = None


class Rotation(Body):
    overlap_seconds: Annotated[int, Field(ge=0, le=604_800, strict=True)] | None = Field(
        None, description="How long the old key stays valid; a day unless given, 7 days at the most."
    )


class KeyAnswer(BaseModel):
    """A key, without its secret."""

    id: UUID
    object: Literal["api_key"]
    prefix: str = Field(description="What may be shown and logged.")
    name: str
    environment: Literal["live", "test"]
    state: Literal["active", "pending", "rotated", "expired", "revoked"]
    scopes: list[str]
    rate_limit_per_minute: int
    rate_limit_burst: int
    allowed_cidrs: list[str]
    not_before: dt.datetime | None
    expires_at: dt.datetime | None
    revoked_at: dt.datetime | None
    revoked_reason: str
    replaced_by: UUID | None
    rotation_due_at: dt.datetime | None
    last_used_at: dt.datetime | None
    last_used_address: str | None
    created_at: dt.datetime


class IssuedKeyAnswer(KeyAnswer):
    api_key: str = Field(description="Shown this once; we keep only what is needed to recognise it.")


class KeyPage(BaseModel):
    data: list[KeyAnswer]
    next: str | None
    previous: str | None


def answer(key: ApiKey, now: dt.datetime, *, text: str | None = None) -> dict[str, Any]:
    """With `text`, the one answer that shows the key."""
    shown = {
        "id": str(key.pk),
        "object": "api_key",
        "prefix": key.prefix,
        "name": key.name,
        "environment": key.environment,
        "state": key.state_at(now),
        "scopes": key.scopes,
        "rate_limit_per_minute": key.rate_limit_per_minute,
        "rate_limit_burst": key.rate_limit_burst,
        "allowed_cidrs": key.allowed_cidrs,
        "not_before": key.not_before,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "revoked_reason": key.revoked_reason,
        "replaced_by": str(key.replaced_by_id) if key.replaced_by_id else None,
        "rotation_due_at": key.rotation_due_at(),
        "last_used_at": key.last_used_at,
        "last_used_address": key.last_used_address,
        "created_at": key.created_at,
    }
    return shown if text is None else {**shown, "api_key": text}


_Read = TypeVar("_Read", bound=Body)


def read(model: type[_Read], body: Any) -> _Read:
    """Raises Problem `validation_error` that names each field and what it needs."""
    if not isinstance(body, dict):
        raise invalid([FieldError("", "invalid_type", "The body must be a JSON object.")])
    errors: list[FieldError] = []
    read_body: _Read | None = None
    try:
        read_body = model.model_validate(body)
    except ValidationError as error:
        errors += [_field_error(detail, model) for detail in error.errors(include_url=False)]
    scopes = body.get("scopes")
    if isinstance(scopes, list):
        errors += [
            FieldError(f"/scopes/{index}", "unknown_scope", reason)
            for index, scope in enumerate(scopes)
            if isinstance(scope, str) and (reason := why_not_grantable(scope))
        ]
    if errors or read_body is None:
        raise invalid(errors)
    return read_body


def from_model(error: ModelError) -> Exception:
    """What the model refused, as a problem of the request."""
    if hasattr(error, "error_dict"):
        return invalid(
            [
                FieldError("" if name == "__all__" else f"/{name}", "invalid_value", " ".join(messages))
                for name, messages in error.message_dict.items()
            ]
        )
    return invalid([FieldError("", str(error.code or "invalid_value"), " ".join(error.messages))])


def _field_error(detail: Any, model: type[Body]) -> FieldError:
    pointer = ""
    for part in detail["loc"]:
        pointer = pointer_to(pointer, part)
    match detail["type"]:
        case "missing":
            return FieldError(pointer, "required", "It is required.")
        case "extra_forbidden":
            name = str(detail["loc"][-1])
            message = f"There is no field {name[:60]!r} here; {suggest(name, list(model.model_fields))}"
            return FieldError(pointer, "unknown_field", message)
    return FieldError(pointer, "invalid_value", f"{detail['msg']}.")
