"""Bodies and queries of the admin API, read strictly: what is unknown is an error that suggests."""

import datetime as dt
import difflib
from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, TypeVar
from uuid import UUID

from django.core.exceptions import ValidationError as ModelError
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)
from rest_framework.request import Request

from partner_api.http.pagination import MAX_LIMIT
from partner_api.http.parsing import pointer_to
from partner_api.http.problems import FieldError, Problem, invalid

_Kind = TypeVar("_Kind", bound=BaseModel)
_MOST: Final = 2_147_483_647


def _plain(value: str) -> str:
    if not value.isprintable():
        message = "control characters can't stand here"
        raise ValueError(message)
    return value


def _in_utc(value: dt.datetime) -> dt.datetime:
    """Postgres knows fewer offsets than RFC 3339; the ends of Python's calendar have no other zone."""
    try:
        return value.astimezone(dt.UTC)
    except OverflowError:
        return value.replace(tzinfo=dt.UTC)


def _text_only(value: Any) -> Any:
    if not isinstance(value, str):
        message = 'it must be a decimal string, such as "500.00"'
        raise ValueError(message)  # noqa: TRY004 - pydantic makes an error of a ValueError only
    return value


Text = Annotated[
    str, StringConstraints(strict=True, strip_whitespace=True, min_length=1), AfterValidator(_plain)
]
Name = Annotated[Text, Field(max_length=200)]
Reason = Annotated[Text, Field(max_length=200)]
Count = Annotated[int, Field(strict=True, ge=0, le=_MOST)]
Rate = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Money = Annotated[Decimal, BeforeValidator(_text_only), Field(ge=0, max_digits=12, decimal_places=2)]
Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def given(self) -> dict[str, Any]:
        """Only what was sent: a PATCH leaves the rest as it is."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class PartnerChange(_Strict):
    name: Name = ""
    contact_email: Annotated[str, Field(strict=True, max_length=254)] = ""
    status: Literal["active", "suspended"] = "active"
    monthly_deed_quota: Count | None = None
    monthly_request_quota: Count | None = None
    budget_cap: Money | None = None
    key_max_age_days: Annotated[int, Field(strict=True, ge=1, le=36_500)] | None = None
    reason: Annotated[str, Field(strict=True, max_length=200)] = ""


class NewPartner(PartnerChange):
    name: Name


class KeyChange(_Strict):
    name: Annotated[Text, Field(max_length=100)] = ""
    scopes: list[Text] = []
    rate_limit_per_minute: Rate = 1
    rate_limit_burst: Rate = 1
    allowed_cidrs: Annotated[list[Text], Field(max_length=100)] = []
    not_before: Moment | None = None
    expires_at: Moment | None = None


class NewKey(KeyChange):
    partner: UUID
    name: Annotated[Text, Field(max_length=100)]
    environment: Literal["live", "test"]


class Revocation(_Strict):
    reason: Reason


class Rotation(_Strict):
    overlap_seconds: Annotated[int, Field(strict=True, ge=0, le=7 * 86_400)] | None = None
    reason: Annotated[str, Field(strict=True, max_length=200)] = ""


class Bootstrap(_Strict):
    name: Name
    contact_email: Annotated[str, Field(strict=True, max_length=254)] = ""
    key_name: Annotated[Text, Field(max_length=100)] = "First key"
    environment: Literal["live", "test"] = "live"


class ListQuery(_Strict):
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None = None
    cursor: str | None = None


class PartnerQuery(ListQuery):
    status: Literal["active", "suspended"] | None = None
    name: str | None = None


class KeyQuery(ListQuery):
    partner: UUID | None = None
    environment: Literal["live", "test"] | None = None
    revoked: Literal["true", "false"] | None = None


class AuditQuery(ListQuery):
    partner: UUID | None = None
    actor_kind: Literal["staff", "key", "token", "command", "system"] | None = None
    actor: str | None = None
    action: str | None = None
    target_id: str | None = None
    created_after: Moment | None = None
    created_before: Moment | None = None


def read(kind: type[_Kind], body: Any) -> _Kind:
    """Raises Problem `validation_error` that lists all that is wrong."""
    if not isinstance(body, dict):
        raise invalid([FieldError("", "invalid_type", "The body must be a JSON object.")])
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise invalid([_error(detail, kind, "body") for detail in error.errors(include_url=False)]) from error


def read_query(kind: type[_Kind], request: Request) -> _Kind:
    """Raises Problem `validation_error` that names the parameter."""
    given = request.query_params
    repeated = [name for name in given if len(given.getlist(name)) > 1]
    if repeated:
        errors = [FieldError(pointer_to("", name), "repeated", "Give it once.", "query") for name in repeated]
        raise invalid(errors)
    if "\x00" in "".join(given.dict().values()):
        raise invalid([FieldError("", "invalid_characters", "A NUL can't stand here.", "query")])
    try:
        return kind.model_validate(given.dict())
    except ValidationError as error:
        raise invalid(
            [_error(detail, kind, "query") for detail in error.errors(include_url=False)]
        ) from error


def refused_by_model(error: ModelError) -> Problem:
    """What a model's own rules found wrong, by field."""
    if not hasattr(error, "error_dict"):
        return invalid([FieldError("", "invalid_value", message) for message in error.messages])
    return invalid(
        [
            FieldError("" if name == "__all__" else pointer_to("", name), "invalid_value", message)
            for name, messages in error.message_dict.items()
            for message in messages
        ]
    )


def _error(detail: Any, kind: type[BaseModel], where: str) -> FieldError:
    pointer = ""
    for part in detail["loc"]:
        pointer = pointer_to(pointer, part)
    match detail["type"]:
        case "missing":
            return FieldError(pointer, "required", "It is required.", where)
        case "extra_forbidden":
            what = "unknown_field" if where == "body" else "unknown_parameter"
            hint = _suggest(str(detail["loc"][-1]), kind.model_fields)
            return FieldError(pointer, what, f"There is no such {what.partition('_')[2]} here; {hint}", where)
        case _:
            return FieldError(pointer, "invalid_value", f"{detail['msg']}.", where)


def _suggest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(names)}."
