"""Stores the request log's spool now, for a host whose web processes have ended."""

from typing import Any

from django.core.management.base import BaseCommand

from billing import draining


class Command(BaseCommand):
    help = "Store what web processes that share USAGE_SPOOL_DIR left in the request log's spool."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(f"{draining.drain()} rows stored.")
