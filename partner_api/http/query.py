"""A query string, read as strictly as a body: unknown, repeated and misspelt parameters are errors."""

import difflib
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from rest_framework.request import Request

from partner_api.http.parsing import pointer_to
from partner_api.http.problems import FieldError, invalid

Query = TypeVar("Query", bound=BaseModel)


def read_query(model: type[Query], request: Request) -> Query:
    """The query as the model, whose aliases name its parameters. Raises Problem `validation_error`."""
    given = request.query_params
    repeated = [name for name in given if len(given.getlist(name)) > 1]
    if repeated:
        raise invalid([in_query(name, "repeated", "Give it once.") for name in repeated])
    try:
        return model.model_validate(given.dict())
    except ValidationError as error:
        names = [field.alias or name for name, field in model.model_fields.items()]
        raise invalid([_error(detail, names) for detail in error.errors()]) from error


def in_query(name: str, code: str, message: str) -> FieldError:
    """An error in the parameter of this name."""
    return FieldError(pointer_to("", name), code, message, where="query")


def _error(detail: Any, names: list[str]) -> FieldError:
    name = str(detail["loc"][0]) if detail["loc"] else ""
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(names))}."
        return in_query(name, "unknown_parameter", f"There is no such parameter; {hint}")
    return in_query(name, "invalid_value", _message(detail))


def _message(detail: Any) -> str:
    known: dict[str, Callable[[], str]] = {
        "literal_error": lambda: f"It must be {detail['ctx']['expected']}.",
        "bool_parsing": lambda: "It must be true or false.",
        "uuid_parsing": lambda: "It must be an id, a UUID.",
    }
    make = known.get(detail["type"])
    return make() if make else f"{detail['msg']}."
