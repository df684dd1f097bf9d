"""Rotates an API key from the command line, and prints the new one once."""

import argparse
import datetime as dt
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from keys import lifecycle
from keys.audit import Actor
from keys.management.finding import key_named, refusals_as_command_errors
from partner_api.ops.checks import MAX_ROTATION_OVERLAP_SECONDS


class Command(BaseCommand):
    help = "Put a new key in an old one's place. The old one stays valid for the overlap."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("key", help="its prefix or id")
        parser.add_argument("--overlap-seconds", type=int, help="KEY_ROTATION_OVERLAP_SECONDS unless given")
        parser.add_argument("--reason", default="")

    def handle(self, *args: Any, **options: Any) -> None:
        old = key_named(options["key"])
        seconds = options["overlap_seconds"]
        if seconds is not None and not 0 <= seconds <= MAX_ROTATION_OVERLAP_SECONDS:
            # Before it is made a timedelta, which has a bound of its own.
            message = f"The overlap must be from 0 to {MAX_ROTATION_OVERLAP_SECONDS} seconds."
            raise CommandError(message)
        overlap = None if seconds is None else dt.timedelta(seconds=seconds)
        with refusals_as_command_errors():
            new, text = lifecycle.rotate(
                Actor.command("rotate_key"), old, overlap=overlap, reason=options["reason"]
            )
        self.stderr.write(f"{new.prefix} is in the place of {old.prefix}, which ends at {old.expires_at}.")
        self.stderr.write("It is shown this once:")
        self.stdout.write(text)
