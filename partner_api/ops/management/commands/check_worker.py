"""For probes: ends with 0 when the worker (or beat) of this machine showed life lately, else with 1."""

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from partner_api.ops import heartbeat


class Command(BaseCommand):
    help = "Tell whether the Celery worker (or beat) of this machine is alive."
    requires_system_checks = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("process", nargs="?", default="worker", choices=heartbeat.NAMES)
        parser.add_argument("--max-age", type=float, default=60.0, help="seconds of silence that are allowed")

    def handle(self, *args: Any, **options: Any) -> None:
        name, allowed = options["process"], options["max_age"]
        age = heartbeat.age_seconds(name)
        if age is None:
            message = f"{name} has shown no sign of life here"
            raise CommandError(message)
        if age > allowed:
            message = f"{name} was last alive {age:.0f} s ago; {allowed:.0f} s are allowed"
            raise CommandError(message)
        self.stdout.write(f"{name} was alive {age:.0f} s ago")
