"""Lists, or deletes, what is stored and belongs to no deed. Exit code 1 when the storage can't be read."""

import argparse
import datetime as dt
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from deeds import verifying
from deeds.stores import StoreUnavailable


class Command(BaseCommand):
    help = "List stored objects that no deed stands for; young ones are left out."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--delete", action="store_true", help="delete them, each after a second look")
        parser.add_argument(
            "--older-than-hours", type=int, default=settings.STORAGE_ORPHAN_HOURS, help="younger ones stay"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        found = deleted = 0
        try:
            for orphan in verifying.orphans(older_than=dt.timedelta(hours=options["older_than_hours"])):
                found += 1
                self.stdout.write(f"{orphan.modified_at:%Y-%m-%d %H:%M} {orphan.bytes:>10,} {orphan.name}")
                if options["delete"]:
                    deleted += verifying.delete_orphan(orphan)
        except StoreUnavailable as error:
            message = f"The storage can't be read: {error}"
            raise CommandError(message) from error
        self.stdout.write(f"orphans {found}, deleted {deleted}")
