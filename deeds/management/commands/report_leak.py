"""What to run when a key was found on the street: it revokes first, and reports then."""

import argparse
import datetime as dt
import io
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from billing.draining import drain
from deeds import leaks
from deeds.leaks import Leak, Tried
from deeds.models import Deed
from keys.audit import Actor
from keys.management.finding import moment, reason
from keys.models import AuditEntry
from keys.secret import PATTERN
from partner_api.ops.redaction import redact

# What web processes take to store what they logged, pause included; a report is due within a minute.
_LONGEST_PAUSE_SECONDS: Final = 15.0
_STORING_SECONDS: Final = 1.0


class Command(BaseCommand):
    help = "Revoke every API key found in a text, and list what each did since a given time."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("source", help="a key, a file that may hold keys, or - for standard input")
        parser.add_argument("--since", type=moment, help="RFC 3339, with its zone; 30 days ago unless given")
        parser.add_argument("--reason", default="Leaked", type=reason)
        parser.add_argument(
            "--also-issued",
            action="store_true",
            help="revoke the keys that were issued with it since then too, and those issued with these",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        since = options["since"] or timezone.now() - dt.timedelta(days=30)
        actor = Actor.command("report_leak")
        found = leaks.revoke_found(actor, _texts(options["source"]), reason=options["reason"])
        if not found:
            raise CommandError("No key of ours was found in it.")
        if options["also_issued"]:
            found += leaks.revoke_issued(actor, found, since=since)
        # What was logged and not stored yet belongs to the report: the last requests before the end. Web
        # processes store theirs by themselves; here is what those of this machine left that have ended.
        if settings.USAGE_DRAIN_SECONDS:
            time.sleep(min(settings.USAGE_DRAIN_SECONDS, _LONGEST_PAUSE_SECONDS) + _STORING_SECONDS)
        drain()
        for leak in found:
            leaks.look_back(leak, since=since)
            self._print(leak, since)

    def _print(self, leak: Leak, since: dt.datetime) -> None:
        key = leak.key
        state = "was revoked before" if leak.was_revoked_before else "is revoked now"
        issuer = f", issued with {leak.issued_by.prefix}," if leak.issued_by else ""
        self.stdout.write(f"{key.prefix} ({key.name}) of {key.partner.name}{issuer} {state}.")
        if leak.requests:
            self.stdout.write(
                f"  {leak.requests} requests since {since:%Y-%m-%d %H:%M} UTC, "
                f"the first {leak.first_at:%Y-%m-%d %H:%M:%S}, the last {leak.last_at:%Y-%m-%d %H:%M:%S}."
            )
        else:
            self.stdout.write(f"  No request since {since:%Y-%m-%d %H:%M} UTC.")
        for title, counted in (("Routes", leak.routes), ("Addresses", leak.addresses)):
            self._list(title, (f"{count:>8}  {name}" for name, count in counted.most_common()))
        self._list(f"Deeds read or changed by their id: {len(leak.read)}", map(_deed, leak.read))
        self._list(f"Deeds ordered: {len(leak.ordered)}", map(_deed, leak.ordered))
        if leak.pages:
            self.stdout.write(
                f"  Pages of GET /v2/deeds read: {leak.pages}. With names and addresses they may have shown"
                f" up to {leak.listed} deeds."
            )
        self._list(f"Changes made: {len(leak.acts)}", map(_act, leak.acts))
        self._list(
            f"Refused with the key: {sum(one.requests for one in leak.tried)}", map(_tried, leak.tried)
        )
        now = timezone.now()
        issued = (f"{one.prefix}  {one.name} ({one.state_at(now)})" for one in leak.issued)
        self._list(f"Keys issued: {len(leak.issued)}", issued)
        if any(one.revoked_at is None for one in leak.issued):
            self.stdout.write("    Whoever held the key has seen these. --also-issued revokes them too.")

    def _list(self, title: str, lines: Iterable[str]) -> None:
        self.stdout.write(f"  {title}")
        for line in lines:
            self.stdout.write(f"    {line}")


def _deed(deed: Deed) -> str:
    return f"{deed.pk}  {deed.order_id} ({deed.deed_type}, {deed.status})"


def _tried(tried: Tried) -> str:
    return f"{tried.requests:>8}  {tried.address}  {tried.code}, the last {tried.last_at:%Y-%m-%d %H:%M:%S}"


def _act(entry: AuditEntry) -> str:
    """With what an act made, where that is an address that news is sent to."""
    about = entry.after.get("url") or entry.after.get("prefix") or entry.after.get("new_key") or ""
    text = f"{entry.at:%Y-%m-%d %H:%M:%S}  {entry.action}  {entry.target_id}"
    return f"{text}  {about}" if about else text


def _texts(source: str) -> list[str]:
    if source == "-":
        return list(leaks.keys_in(sys.stdin))
    if source.startswith(("dp_live_", "dp_test_")) or PATTERN.search(source):
        # However it was pasted: with `Bearer` before it, or a comma after.
        return list(leaks.keys_in(io.StringIO(source)))
    try:
        with Path(source).open(encoding="utf-8", errors="replace") as file:
            return list(leaks.keys_in(file))
    except OSError as error:
        # It may be a key that was cut off.
        message = (
            f"{redact(source)} can't be read: {error.strerror}. Give a key, a file, or - for standard input."
        )
        raise CommandError(message) from error
