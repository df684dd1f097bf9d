"""What the commands about keys have in common: reading what is given, and saying what was refused."""

import argparse
import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError

from keys.models import ApiKey, Partner
from keys.secret import PATTERN


def partner_named(wanted: str) -> Partner | None:
    """By name, or by id."""
    if not wanted.isprintable():
        return None  # no partner has such a name, and a byte that is not UTF-8 can't even be looked for
    by_name = Partner.objects.filter(name=wanted).first()
    if by_name is not None:
        return by_name
    try:
        return Partner.objects.filter(pk=wanted).first()
    except ValidationError:
        return None


def key_named(wanted: str) -> ApiKey:
    """By prefix (`dp_live_…`), by id, or by its whole text. Raises CommandError."""
    match = PATTERN.fullmatch(wanted)
    key_id = match["id"] if match else wanted.removeprefix("dp_live_").removeprefix("dp_test_")
    rows = ApiKey.objects.select_related("partner")
    # A byte that is not UTF-8 can't even be looked for.
    key = rows.filter(key_id=key_id).first() if wanted.isprintable() else None
    if key is None:
        try:
            key = rows.filter(pk=wanted).first()
        except ValidationError:
            key = None
    if key is None:
        shown = "such key" if match else f"key {wanted!r}"
        message = f"There is no {shown}; name it by its prefix, as `manage.py list_keys` shows it."
        raise CommandError(message)
    return key


def moment(text: str) -> dt.datetime:
    """The type of an option that is a time; in UTC. Raises ArgumentTypeError for one without its zone."""
    message = "give the time with its zone: 2026-11-24T08:00:00Z"
    try:
        read = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(message) from error
    if read.tzinfo is None:
        raise argparse.ArgumentTypeError(message)
    try:
        return read.astimezone(dt.UTC)
    except OverflowError as error:
        # Postgres would keep it, and nobody could read the row again: its year is beyond Python's calendar.
        raise argparse.ArgumentTypeError("give a time of the years 1 to 9999 in UTC") from error


def money(text: str) -> Decimal:
    """The type of an option that is an amount of money. Raises ArgumentTypeError for what is none."""
    message = "give an amount such as 500.00"
    try:
        read = Decimal(text)
    except InvalidOperation as error:
        raise argparse.ArgumentTypeError(message) from error
    if not read.is_finite():
        raise argparse.ArgumentTypeError(message)
    return read


def reason(text: str) -> str:
    """The type of an option that says why. Raises ArgumentTypeError for nothing, and for several lines."""
    read = text.strip()
    if not read or not read.isprintable():
        raise argparse.ArgumentTypeError("say why, in words: it stands in the audit trail")
    return read


@contextmanager
def refusals_as_command_errors() -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        raise CommandError("; ".join(error.messages)) from error
