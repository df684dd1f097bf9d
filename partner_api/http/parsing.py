"""JSON bodies, read strictly: what two readers could understand differently is refused.

Duplicate keys, NaN and Infinity, lone surrogates and very deep nesting are all accepted by Python's
reader and by few others (RFC 8259 sections 4, 6 and 8.2); in a legal document's facts none of them may pass.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import IO, Any

from django.conf import settings
from rest_framework.parsers import BaseParser

from partner_api.http.problems import FieldError, Problem, invalid, unread

MAX_DEPTH = 24
_DEPTH_OF_ENTRIES = 2
_NO_CHARACTERS = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True)
class NotText:
    """In the place of an entry that holds text which is not Unicode, so that none of it goes any further.

    The pointers of `errors` begin at the entry; `sha256` tells it from others.
    """

    errors: tuple[FieldError, ...]
    sha256: str


class StrictJSONParser(BaseParser):
    """Numbers with a fraction become Decimal, never float."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Any = None,
    ) -> Any:
        """Raises Problem: `payload_too_large`, `malformed_json` or `validation_error`."""
        view = parser_context["view"] if parser_context else None
        return loads(read_bounded(stream, limit_of(view)), apart=getattr(view, "read_apart", None))


def limit_of(view: Any) -> int:
    """The bytes that a body for this view may have."""
    return int(getattr(view, "max_body_bytes", settings.ORDER_MAX_BYTES))


def read_bounded(stream: IO[bytes], limit: int) -> bytes:
    """The whole body, of at most `limit` bytes.

    Raises Problem `payload_too_large`, or `request_timeout` or `bad_request` where it did not all come.
    """
    # DRF hands over the Django request, whose own limit is one for forms; read beneath it.
    source = getattr(stream, "_stream", stream)
    try:
        body: bytes = source.read(limit + 1)
    except OSError as error:
        raise unread(error) from error
    if len(body) > limit:
        raise Problem("payload_too_large", f"The body has more than {limit:,} bytes.")
    return body


def loads(body: bytes, *, apart: str | None = None) -> Any:
    """Raises Problem `malformed_json`, or `validation_error` for text that is not Unicode.

    Where it stands in an entry of the list that is the body's member `apart`, the entry is NotText instead.
    """
    try:
        text = body.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_decimal,
        )
    except UnicodeDecodeError as error:
        raise _malformed(f"byte {error.start} is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise _malformed(f"line {error.lineno} column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise _malformed(f"it is nested deeper than {MAX_DEPTH} levels") from error
    except ValueError as error:
        raise _malformed(str(error)) from error
    # Only an escape can stand for what is not Unicode: the bytes are UTF-8, and JSON has no bare controls.
    has_escapes = "\\u" in text
    entries = value.get(apart) if has_escapes and apart is not None and isinstance(value, dict) else None
    if isinstance(entries, list):
        value = {**value, apart: [_unless_text(entry) for entry in entries]}
    errors = _wrong_with(value, 0, has_escapes=has_escapes)
    if errors:
        raise invalid(errors)
    return value


def pointer_to(pointer: str, key: str | int) -> str:
    """The JSON Pointer of a member (RFC 6901: `~` and `/` are escaped)."""
    return f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                message = f"the key {key[:60]!a} appears twice in one object"
                raise ValueError(message)
            seen.add(key)
    return value


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as error:
        message = f"{text[:40]} is beyond what a number can be here"
        raise ValueError(message) from error


def _refuse_constant(name: str) -> None:
    message = f"{name} is not a JSON number"
    raise ValueError(message)


def _unless_text(entry: Any) -> Any:
    errors = _wrong_with(entry, _DEPTH_OF_ENTRIES, has_escapes=True)
    if not errors:
        return entry
    # As ASCII, in which halves of surrogate pairs are escapes again.
    digest = hashlib.sha256(json.dumps(entry, sort_keys=True, default=repr).encode())
    return NotText(tuple(errors), digest.hexdigest())


def _wrong_with(value: Any, depth: int, *, has_escapes: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    _walk(value, "", depth, errors, has_escapes=has_escapes)
    return errors


def _walk(value: Any, pointer: str, depth: int, errors: list[FieldError], *, has_escapes: bool) -> None:
    if depth > MAX_DEPTH:
        raise _malformed(f"it is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        for key, member in value.items():
            if has_escapes and _is_not_text(key):
                errors.append(_bad_text(pointer, "A key here"))
            else:
                _walk(member, pointer_to(pointer, key), depth + 1, errors, has_escapes=has_escapes)
    elif isinstance(value, list):
        for index, member in enumerate(value):
            _walk(member, pointer_to(pointer, index), depth + 1, errors, has_escapes=has_escapes)
    elif has_escapes and isinstance(value, str) and _is_not_text(value):
        errors.append(_bad_text(pointer, "The text"))


def _is_not_text(value: str) -> bool:
    return _NO_CHARACTERS.search(value) is not None


def _bad_text(pointer: str, what: str) -> FieldError:
    message = f"{what} has a NUL or half of a surrogate pair; send whole Unicode characters."
    return FieldError(pointer, "invalid_characters", message)


def _malformed(reason: str) -> Problem:
    return Problem("malformed_json", f"The body can't be read as JSON: {reason}.")
