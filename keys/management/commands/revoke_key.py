"""Revokes an API key from the command line."""

import argparse
from typing import Any

from django.core.management.base import BaseCommand

from keys import lifecycle
from keys.audit import Actor
from keys.management.finding import key_named, reason


class Command(BaseCommand):
    help = "Revoke an API key, from its next request on and for good."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("key", help="its prefix or id")
        parser.add_argument("--reason", required=True, type=reason)

    def handle(self, *args: Any, **options: Any) -> None:
        key = key_named(options["key"])
        is_revoked = lifecycle.revoke(Actor.command("revoke_key"), key, reason=options["reason"])
        self.stdout.write(f"{key.prefix} {'is revoked' if is_revoked else 'was revoked before'}.")
