"""Compares the rollups of the request log with the log, or makes them anew."""

import argparse
import datetime as dt
import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from billing import rollups


class Command(BaseCommand):
    help = (
        "Compare the usage rollups with the request log; exit 1 on a difference. --rebuild makes them anew."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        today = timezone.now().date()
        parser.add_argument("--from", dest="first", type=dt.date.fromisoformat, default=today)
        parser.add_argument("--to", dest="last", type=dt.date.fromisoformat, default=today, help="included")
        parser.add_argument("--rebuild", action="store_true", help="make the rollups of these days anew")

    def handle(self, *args: Any, **options: Any) -> None:
        first, last = options["first"], options["last"]
        if options["rebuild"]:
            self.stdout.write(f"{rollups.rebuild(first, last)} days rebuilt.")
        odd = rollups.differences(first, last)
        for difference in odd:
            self.stdout.write(json.dumps(difference, default=str))
        if odd:
            message = f"{len(odd)} rows of the rollups are not what the log says."
            raise CommandError(message)
        self.stdout.write("The rollups are what the log says.")
