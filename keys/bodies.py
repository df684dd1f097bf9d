"""What a partner may send about its keys, read as strictly as an order; and how a key looks from outside."""

import datetime as dt
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from keys.models import ApiKey
from keys.models.api_key import MAX_NETWORKS, MAX_RATE, MAX_SCOPES
from keys.scopes import GRANTABLE, why_not_grantable
from partner_api.http import reading
from partner_api.http.reading import Strict
from partner_api.ops.checks import MAX_ROTATION_OVERLAP_SECONDS


def _grantable(scope: Any) -> Any:
    reason = why_not_grantable(scope) if isinstance(scope, str) else None
    if reason is not None:
        raise PydanticCustomError("unknown_scope", "{reason}", {"reason": reason})
    return scope


def printable(text: str) -> str:
    if not text.isprintable():
        raise PydanticCustomError("invalid_characters", "Control characters can't stand here.")
    return text


Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(printable)]
Rate = Annotated[int, Field(ge=1, le=MAX_RATE, strict=True)]
Scopes = Annotated[
    list[Annotated[str, BeforeValidator(_grantable)]],
    Field(max_length=MAX_SCOPES, json_schema_extra={"items": {"type": "string", "enum": list(GRANTABLE)}}),
]
Networks = Annotated[list[Annotated[str, Field(max_length=43)]], Field(max_length=MAX_NETWORKS)]
Moment = Annotated[reading.Moment, Field(description="RFC 3339, with its zone.")]


class Body(Strict):
    model_config = ConfigDict(str_strip_whitespace=True)


class NewKey(Body):
    """A key for the partner's own mode; it can't have what the asking key has not."""

    name: Name = Field(description="What the key is for.")
    scopes: Scopes = Field(default_factory=list, description="None unless given.")
    rate_limit_per_minute: Rate | None = None
    rate_limit_burst: Rate | None = None
    allowed_cidrs: Networks = Field(default_factory=list, description="Such as 203.0.113.0/24; none for all.")
    not_before: Moment | None = None
    expires_at: Moment | None = None


class KeyChange(Body):
    """Only what is sent is changed."""

    name: Name | None = None
    scopes: Scopes | None = None
    rate_limit_per_minute: Rate | None = None
    rate_limit_burst: Rate | None = None
    allowed_cidrs: Networks | None = None
    expires_at: Moment | None = None


class Revocation(Body):
    """Parameters of a DELETE, whose body would have no meaning (RFC 9110 section 9.3.5)."""

    reason: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(printable)] | None = Field(
        None, description="Why; it stands in the audit trail, and in the key's `revoked_reason`."
    )


class Rotation(Body):
    overlap_seconds: Annotated[int, Field(ge=0, le=MAX_ROTATION_OVERLAP_SECONDS, strict=True)] | None = Field(
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
