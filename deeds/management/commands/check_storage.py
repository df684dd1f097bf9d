"""Reads stored PDFs back and compares them with their rows. Exit code 1 when anything is off."""

import argparse
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from deeds import verifying


class Command(BaseCommand):
    help = "Read stored PDFs back, and compare their SHA-256 with the deeds'. Exit 1 for a finding."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--all", action="store_true", help="every PDF, not just some")
        parser.add_argument(
            "--sample",
            type=int,
            default=settings.STORAGE_CHECK_SAMPLE,
            help="how many of those that were not looked at for longest",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        report = verifying.verify(limit=None if options["all"] else options["sample"])
        self.stdout.write(
            f"right {report.right}, missing {report.missing}, another PDF {report.differs}, "
            f"unreadable {report.unreadable}, not readable now {report.unread}"
        )
        if not report.is_clean:
            message = "The storage is not as the deeds say; see Storage findings in the admin."
            raise CommandError(message)
