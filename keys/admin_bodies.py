"""What may stand in the bodies and queries of the admin API."""

from decimal import Decimal
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from keys.bodies import Rate, printable
from keys.models.api_key import MAX_NETWORKS, MAX_SCOPES
from keys.models.partner import MAX_KEY_AGE_DAYS
from partner_api.http.reading import Moment, PageQuery, Strict
from partner_api.ops.checks import MAX_ROTATION_OVERLAP_SECONDS

_MOST: Final = 2_147_483_647


def _without_nul(value: str) -> str:
    """Postgres can't compare with one."""
    if "\x00" in value:
        raise PydanticCustomError("invalid_characters", "A NUL can't stand here.")
    return value


def _text_only(value: Any) -> Any:
    if not isinstance(value, str):
        message = 'it must be a decimal string, such as "500.00"'
        raise ValueError(message)  # noqa: TRY004 - pydantic makes an error of a ValueError only
    return value


_Words = Annotated[str, StringConstraints(strict=True, strip_whitespace=True, min_length=1)]
Text = Annotated[_Words, AfterValidator(printable)]
Wanted = Annotated[str, AfterValidator(_without_nul)]
# Their bounds first: behind a function pydantic takes text for a list of items.
Name = Annotated[_Words, Field(max_length=200), AfterValidator(printable)]
KeyName = Annotated[_Words, Field(max_length=100), AfterValidator(printable)]
Reason = Annotated[_Words, Field(max_length=200), AfterValidator(printable)]
ReasonIfAny = Annotated[str, Field(strict=True, max_length=200), AfterValidator(printable)]
Count = Annotated[int, Field(strict=True, ge=0, le=_MOST)]
Money = Annotated[Decimal, BeforeValidator(_text_only), Field(ge=0, max_digits=12, decimal_places=2)]


class PartnerChange(Strict):
    name: Name = ""
    contact_email: Annotated[str, Field(strict=True, max_length=254)] = ""
    status: Literal["active", "suspended"] = "active"
    monthly_deed_quota: Count | None = None
    monthly_request_quota: Count | None = None
    budget_cap: Money | None = None
    key_max_age_days: Annotated[int, Field(strict=True, ge=1, le=MAX_KEY_AGE_DAYS)] | None = None
    reason: ReasonIfAny = ""


class NewPartner(PartnerChange):
    name: Name


class KeyChange(Strict):
    name: KeyName = ""
    scopes: Annotated[list[Text], Field(max_length=MAX_SCOPES)] = []
    rate_limit_per_minute: Rate = 1
    rate_limit_burst: Rate = 1
    allowed_cidrs: Annotated[list[Text], Field(max_length=MAX_NETWORKS)] = []
    not_before: Moment | None = None
    expires_at: Moment | None = None


class NewKey(KeyChange):
    partner: UUID
    name: KeyName
    environment: Literal["live", "test"]


class Revocation(Strict):
    reason: Reason


class Rotation(Strict):
    overlap_seconds: Annotated[int, Field(strict=True, ge=0, le=MAX_ROTATION_OVERLAP_SECONDS)] | None = None
    reason: ReasonIfAny = ""


class Bootstrap(Strict):
    name: Name
    contact_email: Annotated[str, Field(strict=True, max_length=254)] = ""
    key_name: KeyName = "First key"
    environment: Literal["live", "test"] = "live"


class PartnerQuery(PageQuery):
    status: Literal["active", "suspended"] | None = None
    name: Wanted | None = None


class KeyQuery(PageQuery):
    partner: UUID | None = None
    environment: Literal["live", "test"] | None = None
    revoked: Literal["true", "false"] | None = None


class AuditQuery(PageQuery):
    partner: UUID | None = None
    actor_kind: Literal["staff", "key", "token", "command", "system"] | None = None
    actor: Wanted | None = None
    action: Wanted | None = None
    target_id: Wanted | None = None
    created_after: Moment | None = None
    created_before: Moment | None = None
