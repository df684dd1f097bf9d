"""Bodies and queries, read into pydantic models for every app: all that is wrong is listed, with pointers.

Unknown members are errors that suggest what was meant. A model that has words of its own for an error
states them in `says`.
"""

import datetime as dt
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar, get_args

from django.core.exceptions import ValidationError as ModelError
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import ErrorDetails, PydanticCustomError, core_schema
from rest_framework.request import Request

from partner_api.http.pagination import MAX_LIMIT
from partner_api.http.parsing import pointer_to
from partner_api.http.problems import FieldError, Problem, invalid
from partner_api.http.suggestions import suggest

# By the type of an error: our code and sentence, which may name what is in the error's context, and its
# own `message`.
Says = Mapping[str, tuple[str, str]]

NO_TIME: Final = "It must be a time in RFC 3339, with its zone: 2026-11-24T08:00:00Z."
_SAYS: Final[Says] = {
    "missing": ("required", "It is required."),
    "literal_error": ("invalid_value", "It must be {expected}."),
    "uuid_parsing": ("invalid_value", "It must be an id, a UUID."),
    "uuid_type": ("invalid_value", "It must be an id, a UUID."),
    "bool_parsing": ("invalid_value", "It must be true or false."),
    "bool_type": ("invalid_value", "It must be true or false."),
    "string_type": ("invalid_value", "It must be text."),
    "string_too_short": ("invalid_value", "It is too short: it needs {min_length} or more characters."),
    "string_too_long": ("invalid_value", "It is too long: it may have {max_length} characters at the most."),
    "int_type": ("invalid_value", "It must be a whole number."),
    "int_parsing": ("invalid_value", "It must be a whole number."),
    "greater_than_equal": ("invalid_value", "It must be {ge} or more."),
    "less_than_equal": ("invalid_value", "It must be {le} or less."),
    "list_type": ("invalid_value", "It must be a list."),
    "too_short": ("invalid_value", "It has too few items: it needs {min_length} or more."),
    "too_long": ("invalid_value", "It has too many items: it may have {max_length} at the most."),
}
_OF_PYDANTIC: Final = frozenset(get_args(core_schema.ErrorType))


class Strict(BaseModel):
    """What a request may carry, and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    says: ClassVar[Says] = {}

    def given(self) -> dict[str, Any]:
        """Only what was sent: a PATCH leaves the rest as it is."""
        return {name: getattr(self, name) for name in self.model_fields_set}


def _in_utc(value: dt.datetime) -> dt.datetime:
    """Postgres knows fewer offsets than RFC 3339; the ends of Python's calendar have no other zone."""
    try:
        return value.astimezone(dt.UTC)
    except OverflowError:
        return value.replace(tzinfo=dt.UTC)


def _limit(value: Any, inner: ValidatorFunctionWrapHandler) -> Any:
    try:
        # Python reads 5.0 and 1_0 as numbers, too; the paginator would not.
        return inner(value if str(value).isdecimal() else None)
    except ValidationError as error:
        message = f"It must be a whole number from 1 to {MAX_LIMIT}."
        raise PydanticCustomError("invalid_value", message) from error


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT), WrapValidator(_limit)]


class PageQuery(Strict):
    """The parameters of every list."""

    limit: Limit | None = None
    cursor: str | None = Field(None, description="From `next` or `previous` of another page.")


_Kind = TypeVar("_Kind", bound=Strict)


def read_body(kind: type[_Kind], body: Any) -> _Kind:
    """Raises Problem `validation_error`."""
    if not isinstance(body, dict):
        raise invalid([FieldError("", "invalid_type", "The body must be a JSON object.")])
    return _read(kind, body, "body")


def read_query(kind: type[_Kind], request: Request) -> _Kind:
    """The parameters are named by the model's aliases. Raises Problem `validation_error`."""
    given = request.query_params
    repeated = [name for name in given if len(given.getlist(name)) > 1]
    if repeated:
        raise invalid([in_query(name, "repeated", "Give it once.") for name in repeated])
    return _read(kind, given.dict(), "query")


def in_query(name: str, code: str, message: str) -> FieldError:
    """An error in the parameter of this name."""
    return FieldError(pointer_to("", name), code, message, where="query")


def refused_by_model(error: ModelError) -> Problem:
    """What a Django model's own rules found wrong, by field."""
    if not hasattr(error, "error_dict"):
        return invalid([FieldError("", "invalid_value", message) for message in error.messages])
    return invalid(
        [
            FieldError("" if name == "__all__" else pointer_to("", name), "invalid_value", message)
            for name, messages in error.message_dict.items()
            for message in messages
        ]
    )


def _read(kind: type[_Kind], given: Any, where: Literal["body", "query"]) -> _Kind:
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise invalid([_error(detail, kind, where) for detail in error.errors(include_url=False)]) from error


def _error(detail: ErrorDetails, kind: type[Strict], where: Literal["body", "query"]) -> FieldError:
    pointer = ""
    for part in detail["loc"]:
        pointer = pointer_to(pointer, part)
    code, message = _said(detail, kind, {"body": "field", "query": "parameter"}[where])
    return FieldError(pointer, code, message, where)


def _said(detail: ErrorDetails, kind: type[Strict], member: str) -> tuple[str, str]:
    error = detail["type"]
    if error == "extra_forbidden":
        name = str(detail["loc"][-1])
        message = f"There is no {member} {name[:60]!r} here"
        # Further down it is another model, whose members are not known here.
        if len(detail["loc"]) > 1:
            return f"unknown_{member}", f"{message}."
        known = [field.alias or own for own, field in kind.model_fields.items()]
        return f"unknown_{member}", f"{message}; {suggest(name, known)}"
    if error.startswith(("datetime", "timezone")):
        return "invalid_value", NO_TIME
    # What our own validators raise has our code and is a whole sentence.
    otherwise = ("invalid_value", "{message}.") if error in _OF_PYDANTIC else (error, "{message}")
    code, sentence = {**_SAYS, **kind.says}.get(error, otherwise)
    return code, sentence.format_map({"message": detail["msg"], **detail.get("ctx", {})})
