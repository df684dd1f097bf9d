"""What to run when a key was found on the street: it revokes first, and reports then."""

import argparse
import datetime as dt
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from billing.draining import drain
from deeds import leaks
from deeds.leaks import Leak
from keys.audit import Actor


class Command(BaseCommand):
    help = "Revoke every API key found in a text, and list what each did since a given time."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("source", help="a key, a file that may hold keys, or - for standard input")
        parser.add_argument("--since", type=_moment, help="RFC 3339, with its zone; 30 days ago unless given")
        parser.add_argument("--reason", default="Leaked")

    def handle(self, *args: Any, **options: Any) -> None:
        since = options["since"] or timezone.now() - dt.timedelta(days=30)
        found = leaks.revoke_found(
            Actor.command("report_leak"), _texts(options["source"]), reason=options["reason"]
        )
        if not found:
            raise CommandError("No key of ours was found in it.")
        # What this machine's processes have logged and not stored yet belongs to the report.
        drain()
        for leak in found:
            leaks.look_back(leak, since=since)
            self._print(leak, since)

    def _print(self, leak: Leak, since: dt.datetime) -> None:
        key = leak.key
        state = "was revoked before" if leak.was_revoked_before else "is revoked now"
        self.stdout.write(f"{key.prefix} ({key.name}) of {key.partner.name} {state}.")
        if not leak.requests:
            self.stdout.write(f"  No request since {since:%Y-%m-%d %H:%M} UTC.")
            return
        self.stdout.write(
            f"  {leak.requests} requests since {since:%Y-%m-%d %H:%M} UTC, "
            f"the first {leak.first_at:%Y-%m-%d %H:%M:%S}, the last {leak.last_at:%Y-%m-%d %H:%M:%S}."
        )
        for title, counted in (("Routes", leak.routes), ("Addresses", leak.addresses)):
            self.stdout.write(f"  {title}:")
            for name, count in counted.most_common():
                self.stdout.write(f"    {count:>8}  {name}")
        self.stdout.write(f"  Deeds read or ordered: {len(leak.deeds)}")
        for deed in leak.deeds:
            self.stdout.write(f"    {deed.pk}  {deed.order_id} ({deed.deed_type}, {deed.status})")


def _texts(source: str) -> list[str]:
    if source == "-":
        return list(leaks.keys_in(sys.stdin))
    if source.startswith(("dp_live_", "dp_test_")):
        return [source.strip()]
    try:
        with Path(source).open(encoding="utf-8", errors="replace") as file:
            return list(leaks.keys_in(file))
    except OSError as error:
        message = f"{source} can't be read: {error.strerror}. Give a key, a file, or - for standard input."
        raise CommandError(message) from error


def _moment(text: str) -> dt.datetime:
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        message = "give the time with its zone: 2026-11-24T08:00:00Z"
        raise argparse.ArgumentTypeError(message)
    return moment
