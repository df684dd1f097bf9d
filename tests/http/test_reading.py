"""The one reader of bodies and queries: what a client is told, by pointer, about each thing that is wrong."""

import datetime as dt
from typing import Annotated, Any, ClassVar
from uuid import UUID

import pytest
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory

from partner_api.http.problems import Problem
from partner_api.http.reading import Moment, PageQuery, Says, Strict, read_body, read_query


def _even(value: int) -> int:
    if value % 2:
        raise PydanticCustomError("odd", "It must be even; {value} is not.", {"value": value})
    return value


class Inner(Strict):
    deep: Annotated[str, Field(max_length=3)] = ""


class Body(Strict):
    says: ClassVar[Says] = {"string_too_long": ("too_long", "More than {max_length} characters.")}

    name: Annotated[str, Field(max_length=3)]
    number: Annotated[int, AfterValidator(_even)] = 0
    at: Moment | None = None
    inner: list[Inner] = []


class Bounded(Strict):
    name: Annotated[str, Field(min_length=1)]
    rate: Annotated[int, Field(ge=1)]
    most: Annotated[int, Field(le=8)]
    one: Annotated[list[int], Field(min_length=1)]
    two: Annotated[list[int], Field(max_length=2)]
    text: Annotated[str, Field(max_length=3)]
    count: Annotated[int, Field(strict=True)]


class Query(PageQuery):
    from_: Moment | None = Field(None, alias="from")
    owner: UUID | None = None
    livemode: bool | None = None


def errors_of(problem: Problem) -> list[tuple[str, str, str]]:
    assert problem.code == "validation_error"
    return [(error.pointer, error.code, error.message) for error in problem.errors]


def asked(query: str) -> Request:
    return Request(APIRequestFactory().get(f"/?{query}"))


def test_it_works() -> None:
    body = read_body(Body, {"name": "Ann", "at": "2026-11-24T08:00:00+02:00"})
    assert body.at == dt.datetime(2026, 11, 24, 6, tzinfo=dt.UTC)
    assert body.at.tzinfo is dt.UTC
    assert body.given() == {"name": "Ann", "at": body.at}
    query = read_query(Query, asked("limit=5&livemode=true&from=2026-11-24T08:00:00Z"))
    assert (query.limit, query.livemode, query.cursor) == (5, True, None)
    assert query.from_ == dt.datetime(2026, 11, 24, 8, tzinfo=dt.UTC)


@pytest.mark.parametrize("body", [None, [], "text", 1])
def test_a_body_that_is_no_object_is_refused(body: Any) -> None:
    with pytest.raises(Problem) as told:
        read_body(Body, body)
    assert errors_of(told.value) == [("", "invalid_type", "The body must be a JSON object.")]


def test_all_that_is_wrong_is_told_at_once_each_with_its_pointer() -> None:
    with pytest.raises(Problem) as told:
        read_body(Body, {"nmae": "Ann", "number": 3, "at": "soon", "inner": [{"deep": 1}, {"a/b": 1}]})
    time = "It must be a time in RFC 3339, with its zone: 2026-11-24T08:00:00Z."
    assert errors_of(told.value) == [
        ("/name", "required", "It is required."),
        ("/number", "odd", "It must be even; 3 is not."),
        ("/at", "invalid_value", time),
        ("/inner/0/deep", "invalid_value", "It must be text."),
        ("/inner/1/a~1b", "unknown_field", "There is no field 'a/b' here."),
        ("/nmae", "unknown_field", "There is no field 'nmae' here; did you mean 'name'?"),
    ]
    assert {error.where for error in told.value.errors} == {"body"}


def test_bounds_are_told_in_our_words() -> None:
    given = {"name": "", "rate": 0, "most": 9, "one": [], "two": [1, 2, 3], "text": "long", "count": "1"}
    with pytest.raises(Problem) as told:
        read_body(Bounded, given)
    assert [error[::2] for error in errors_of(told.value)] == [
        ("/name", "It is too short: it needs 1 or more characters."),
        ("/rate", "It must be 1 or more."),
        ("/most", "It must be 8 or less."),
        ("/one", "It has too few items: it needs 1 or more."),
        ("/two", "It has too many items: it may have 2 at the most."),
        ("/text", "It is too long: it may have 3 characters at the most."),
        ("/count", "It must be a whole number."),
    ]


def test_a_model_may_say_an_error_in_its_own_words() -> None:
    with pytest.raises(Problem) as told:
        read_body(Body, {"name": "Anne"})
    assert errors_of(told.value) == [("/name", "too_long", "More than 3 characters.")]


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("form=x", ("/form", "unknown_parameter", "There is no parameter 'form' here; did you mean 'from'?")),
        (
            "from_=x",
            ("/from_", "unknown_parameter", "There is no parameter 'from_' here; did you mean 'from'?"),
        ),
        ("owner=1&owner=2", ("/owner", "repeated", "Give it once.")),
        ("owner=me", ("/owner", "invalid_value", "It must be an id, a UUID.")),
        ("livemode=perhaps", ("/livemode", "invalid_value", "It must be true or false.")),
    ],
)
def test_a_wrong_parameter_is_named(query: str, error: tuple[str, str, str]) -> None:
    with pytest.raises(Problem) as told:
        read_query(Query, asked(query))
    assert errors_of(told.value) == [error]
    assert told.value.errors[0].where == "query"


@pytest.mark.parametrize("limit", ["0", "101", "many", "", "5.0", "1_0", "-1", "9" * 5000])
def test_a_limit_is_a_whole_number_within_bounds(limit: str) -> None:
    with pytest.raises(Problem) as told:
        read_query(Query, asked(f"limit={limit}"))
    assert errors_of(told.value) == [("/limit", "invalid_value", "It must be a whole number from 1 to 100.")]


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00"])
def test_the_ends_of_the_calendar_are_moments_too(at: str) -> None:
    moment = read_body(Body, {"name": "Ann", "at": at}).at
    assert moment is not None
    assert moment.tzinfo is dt.UTC
