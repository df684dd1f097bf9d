"""What may stand in the bodies and queries of the webhook API."""

from typing import Annotated, Any, ClassVar, Final, Literal
from uuid import UUID

from django.conf import settings
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from partner_api.http import reading
from partner_api.http.reading import PageQuery, Says, Strict
from webhooks import addresses
from webhooks.event_types import PATTERNS, why_no_pattern


def _pattern(value: str) -> str:
    reason = why_no_pattern(value)
    if reason is not None:
        raise PydanticCustomError("unknown_event_type", "{reason}", {"reason": reason})
    return value


def _each_once(value: list[str]) -> list[str]:
    return list(dict.fromkeys(value))


def _moment(value: Any) -> Any:
    """A number would be read as Unix time; a moment is text with its zone."""
    if not isinstance(value, str):
        raise PydanticCustomError("invalid_value", reading.NO_TIME)
    return value


def _plain(value: str) -> str:
    if any(ord(character) < ord(" ") for character in value):
        raise PydanticCustomError("invalid_characters", "It must not have control characters.")
    return value


# What a URL has to be, for who fills in a form or a body.
ADDRESS: Final = f"https, with a public address; ports: {', '.join(map(str, settings.WEBHOOKS_PORTS))}."

Pattern = Annotated[
    str, AfterValidator(_pattern), Field(json_schema_extra={"enum": list(PATTERNS), "type": "string"})
]
Url = Annotated[str, Field(min_length=1, max_length=addresses.MAX_URL_LENGTH)]
EventTypes = Annotated[
    list[Pattern],
    Field(min_length=1, max_length=len(PATTERNS), description="Types, `deed.*`, or `*`."),
    AfterValidator(_each_once),
]
Description = Annotated[str, Field(max_length=200), AfterValidator(_plain)]
Moment = Annotated[reading.Moment, BeforeValidator(_moment)]


class Body(Strict):
    says: ClassVar[Says] = {
        "string_type": ("invalid_type", "It must be text."),
        "list_type": ("invalid_type", "It must be a list."),
        "bool_type": ("invalid_type", "It must be true or false."),
        "string_too_short": ("required", "It is empty."),
        "too_short": ("required", "It is empty."),
        "string_too_long": ("too_long", "It has more than {max_length:,} characters."),
        "too_long": ("too_many", "It has more than {max_length} entries."),
    }


class EndpointBody(Body):
    """A new endpoint."""

    url: Url = Field(description=ADDRESS)
    event_types: EventTypes = Field(default=["*"])
    description: Description = ""


class EndpointChange(Body):
    """What is to change; the rest stays."""

    # Looked at by `given` only. Factories, because a default would stand in the OpenAPI document.
    url: Url = Field(default_factory=str)
    event_types: EventTypes = Field(default_factory=list)
    description: Description = Field(default_factory=str)
    enabled: Annotated[bool, Field(strict=True)] = Field(
        default_factory=bool, description="true also clears its record of failures."
    )


class ReplayBody(Body):
    """From when on events are sent once more."""

    since: Moment
    until: Moment | None = Field(None, description="Leave out events from then on.")
    undelivered_only: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="Leave out those that the endpoint has received."
    )


class EventQuery(PageQuery):
    type: Pattern | None = None


class DeliveryQuery(PageQuery):
    endpoint: UUID | None = None
    event: UUID | None = None
    status: Literal["pending", "sending", "succeeded", "failed", "cancelled"] | None = None

    def filters(self) -> dict[str, Any]:
        given = {"endpoint": self.endpoint, "event": self.event, "status": self.status}
        return {name: value for name, value in given.items() if value is not None}
