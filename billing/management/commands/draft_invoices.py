"""Closes the billing periods that have ended and drafts their invoices, as beat does."""

from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from billing import invoicing


class Command(BaseCommand):
    help = "Close ended billing periods and draft their invoices. Safe to run again."

    def handle(self, *args: Any, **options: Any) -> None:
        closed = invoicing.close_ended(now=timezone.now())
        self.stdout.write(f"{closed} periods closed")
