"""The kinds of value an order is made of. Each says to a validator and to a JSON Schema the same.

What a rule refuses, a recorder would refuse or a reader could misread: blank text, control and
bidirectional-override characters, money that is not exact to the cent, dates that don't exist.
"""

import datetime as dt
import re
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from deeds import counties

# C0 and C1 controls, line and paragraph separators, bidirectional overrides and isolates.
_UNPRINTABLE: Final = r"\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
_ONE_LINE: Final = re.compile(f"[{_UNPRINTABLE}]")
_LINES: Final = re.compile(f"(?![\n\r\t])[{_UNPRINTABLE}]")
MONEY: Final = r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,2})?$"
_MONEY: Final = re.compile(MONEY)
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _text(value: str) -> str:
    return _printable(value, _ONE_LINE, "one line of printable text")


def _lines(value: str) -> str:
    return _printable(value, _LINES, "printable text (line breaks and tabs are fine)")


def _printable(value: str, refused: re.Pattern[str], wanted: str) -> str:
    if not value.strip():
        raise PydanticCustomError("blank", "It is blank; leave it out or fill it in.")
    found = refused.search(value)
    if found:
        raise PydanticCustomError(
            "invalid_characters",
            "It has the character U+{code} at position {position}; send " + wanted + ".",
            {"code": f"{ord(found[0]):04X}", "position": found.start()},
        )
    return value


def _party_name(value: str) -> str:
    if ";" in value:
        raise PydanticCustomError(
            "invalid_characters",
            "It has a semicolon, which would split it into two parties; give each an entry.",
        )
    return value


def _money(value: str) -> str:
    if not _MONEY.match(value) or value.endswith("\n"):
        raise PydanticCustomError(
            "invalid_money",
            'It must be dollars as a decimal string, zero or more, with at most two places: "825.00".',
        )
    return value


def _date(value: str) -> str:
    try:
        if not _DATE.fullmatch(value):
            raise ValueError(value)  # noqa: TRY301 - one message for both ways to be wrong
        dt.date.fromisoformat(value)
    except ValueError as error:
        raise PydanticCustomError("invalid_date", "It must be a date that exists, as YYYY-MM-DD.") from error
    return value


def _boolean(value: Any) -> Any:
    """Python takes 1 for True; a declaration must say which."""
    if not isinstance(value, bool):
        raise PydanticCustomError("invalid_choice", "It must be true or false, without quotes.")
    return value


def _county(value: str) -> str:
    if counties.canonical(value) is None:
        near = counties.nearest(value)
        raise PydanticCustomError(
            "unknown_county",
            "It is not one of California's 58 counties{hint}.",
            {"hint": f"; did you mean {near}?" if near else ""},
        )
    return value


def _pattern(*, also: str = "", refused: str = _UNPRINTABLE) -> str:
    """ECMA-262: printable text with at least one character that is not white space."""
    any_character = f"[^{refused}{also}]"
    return f"^{any_character}*[^\\s{refused}{also}]{any_character}*$"


_LINES_REFUSED: Final = _UNPRINTABLE.replace(r"\x00-\x1f", r"\x00-\x08\x0b\x0c\x0e-\x1f")


def _schema(pattern: str, max_length: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "minLength": 1, "maxLength": max_length, "pattern": pattern})


Text60 = Annotated[
    str,
    StringConstraints(min_length=1, max_length=60),
    AfterValidator(_text),
    _schema(_pattern(), 60),
]
Text100 = Annotated[
    str,
    StringConstraints(min_length=1, max_length=100),
    AfterValidator(_text),
    _schema(_pattern(), 100),
]
Text300 = Annotated[
    str,
    StringConstraints(min_length=1, max_length=300),
    AfterValidator(_text),
    _schema(_pattern(), 300),
]
Text500 = Annotated[
    str,
    StringConstraints(min_length=1, max_length=500),
    AfterValidator(_text),
    _schema(_pattern(), 500),
]
Lines2000 = Annotated[
    str,
    StringConstraints(min_length=1, max_length=2000),
    AfterValidator(_lines),
    _schema(_pattern(refused=_LINES_REFUSED), 2000),
]
LegalDescription = Annotated[
    str,
    StringConstraints(min_length=1, max_length=50_000),
    AfterValidator(_lines),
    _schema(_pattern(refused=_LINES_REFUSED), 50_000),
]
PartyName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=300),
    AfterValidator(_text),
    AfterValidator(_party_name),
    _schema(_pattern(also=";"), 300),
]
Yes = Annotated[Literal[True], BeforeValidator(_boolean)]
No = Annotated[Literal[False], BeforeValidator(_boolean)]
Money = Annotated[
    str,
    AfterValidator(_money),
    WithJsonSchema({"type": "string", "pattern": MONEY, "examples": ["825.00"]}),
]
Date = Annotated[
    str,
    AfterValidator(_date),
    WithJsonSchema({"type": "string", "format": "date", "examples": ["2026-11-24"]}),
]
County = Annotated[
    str,
    AfterValidator(_county),
    WithJsonSchema({"type": "string", "enum": list(counties.COUNTIES)}),
]
StateCode = Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
ZipCode = Annotated[str, Field(pattern=r"^[0-9]{5}(-[0-9]{4})?$")]


def cents(value: str) -> Decimal:
    """The amount of a Money value, in dollars with two places."""
    return Decimal(value).quantize(Decimal("0.01"))
