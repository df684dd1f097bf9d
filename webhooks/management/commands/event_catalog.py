"""Writes docs/events.md, or prints it."""

import argparse
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from webhooks.documents import catalog_page


class Command(BaseCommand):
    help = "Write the page of all event types from their definitions."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--file", type=Path, help="where to; standard output without it")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["file"]:
            options["file"].write_text(catalog_page())
        else:
            self.stdout.write(catalog_page(), ending="")
