"""Prints, or puts, the rule by which S3 deletes PDFs that were kept long enough, if ours did not."""

import argparse
import json
from typing import Any

from django.core.files.storage import storages
from django.core.management.base import BaseCommand, CommandError

from deeds import keeping
from deeds.stores import StoreUnavailable
from deeds.stores.s3 import S3Store


class Command(BaseCommand):
    help = "Print the S3 lifecycle rule of PDF_RETENTION_DAYS as JSON; --apply puts it into the bucket."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--apply", action="store_true", help="put it; the bucket's other rules stay")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            rules = keeping.lifecycle_rules()
        except ValueError as error:
            raise CommandError(str(error)) from error
        if not options["apply"]:
            self.stdout.write(json.dumps(rules, indent=2))
            return
        store = storages["deeds"]
        if not isinstance(store, S3Store):
            message = "STORAGE_BACKEND is not s3: a folder has no lifecycle rules."
            raise CommandError(message)
        try:
            store.put_lifecycle(keeping.merged_with(store.lifecycle()))
        except StoreUnavailable as error:
            message = f"The rule was not put: {error}"
            raise CommandError(message) from error
        self.stdout.write("The rule is in the bucket.")
