"""The kinds of value an order is made of. Each says to a validator and to a JSON Schema the same.

What a rule refuses, a recorder would refuse or a reader could misread: blank text, control and
bidirectional-override characters, money that is not exact to the cent, dates that don't exist.
"""

import datetime as dt
import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, GetCoreSchemaHandler, WithJsonSchema
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from deeds import counties

_CONTROLS: Final = r"\x00-\x1f"
_CONTROLS_BUT_BREAKS: Final = r"\x00-\x08\x0b\x0c\x0e-\x1f"
# Further controls, line and paragraph separators, bidirectional overrides and isolates; what has no width
# (soft hyphen, joiners, marks of direction, the byte order mark) or fills a place with nothing (Hangul and
# Braille); and what stands for a character that was lost.
_UNPRINTABLE: Final = (
    r"\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
    r"\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2060-\u2065\u206a-\u206f"
    r"\u2800\u3164\ufeff\uffa0\ufff0-\ufffd"
)
# Letters, numbers, punctuation and symbols, by the first letter of their Unicode category. A text of others
# alone (spaces, marks that combine with nothing, invisible tags) shows nothing.
_SHOWN: Final = frozenset("LNPS")
# Of Latin scripts, which a deed is written in (Cal. Gov. Code § 27293), and digits.
_LETTERS: Final = r"0-9A-Za-z\xc0-\xd6\xd8-\xf6\xf8-\u024f\u1e00-\u1eff"
MONEY: Final = r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,2})?$"
_MONEY: Final = re.compile(MONEY)
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


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


@dataclass(frozen=True)
class Printable:
    """Text that can stand on a deed: not blank, nothing invisible, at most `max_length` characters.

    With `lines` it may have line breaks and tabs. `without` lists further characters that are refused.
    What a deed is recognised by `names` something: a dash or a dot, as in a form that was skipped, does not.
    """

    max_length: int
    lines: bool = False
    without: str = ""
    names: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.str_schema(strict=True, min_length=1, max_length=self.max_length)
        return core_schema.no_info_after_validator_function(self.check, text)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        any_character = f"[^{self._refused}]"
        visible = f"[{_LETTERS}]" if self.names else f"[^\\s{self._refused}]"
        return {
            "type": "string",
            "minLength": 1,
            "maxLength": self.max_length,
            "pattern": f"^{any_character}*{visible}{any_character}*$",
        }

    def check(self, value: str) -> str:
        """Raises PydanticCustomError `blank` or `invalid_characters`."""
        if not any(unicodedata.category(character)[0] in _SHOWN for character in value):
            raise PydanticCustomError("blank", "It is blank; leave it out or fill it in.")
        if self.names and not re.search(f"[{_LETTERS}]", value):
            raise PydanticCustomError("blank", "It has neither a letter nor a digit; fill it in.")
        found = re.search(f"[{self._refused}]", value)
        if found:
            hint = " (give each party an entry of its own)" if found[0] == ";" else ""
            raise PydanticCustomError(
                "invalid_characters",
                "The character U+{code} at position {position} can't stand here{hint}.",
                {"code": f"{ord(found[0]):04X}", "position": found.start(), "hint": hint},
            )
        return value

    @property
    def _refused(self) -> str:
        """The inside of a character class, the same in ECMA-262 and in Python."""
        return (_CONTROLS_BUT_BREAKS if self.lines else _CONTROLS) + _UNPRINTABLE + self.without


Text60 = Annotated[str, Printable(60)]
Text100 = Annotated[str, Printable(100)]
Text300 = Annotated[str, Printable(300)]
Text500 = Annotated[str, Printable(500)]
Lines2000 = Annotated[str, Printable(2000, lines=True)]
LegalDescription = Annotated[str, Printable(50_000, lines=True)]
# The Main API takes several parties as one text, split by ";".
PartyName = Annotated[str, Printable(300, without=";", names=True)]
ParcelNumber = Annotated[str, Printable(60, names=True)]
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
