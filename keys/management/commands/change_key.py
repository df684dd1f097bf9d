"""Changes an API key's scopes, limits, networks or expiry from the command line."""

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from keys import lifecycle
from keys.audit import Actor
from keys.management.finding import key_named, moment, refusals_as_command_errors


class Command(BaseCommand):
    help = "Change what an API key may do. What is given replaces what was; the secret stays."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("key", help="its prefix or id")
        parser.add_argument("--name")
        parser.add_argument("--scope", action="append", dest="scopes", help="may be repeated")
        parser.add_argument("--no-scopes", action="store_const", const=[], dest="scopes")
        parser.add_argument("--allow", action="append", dest="allowed_cidrs", help="may be repeated")
        parser.add_argument("--allow-all", action="store_const", const=[], dest="allowed_cidrs")
        parser.add_argument("--per-minute", type=int, dest="rate_limit_per_minute")
        parser.add_argument("--burst", type=int, dest="rate_limit_burst")
        parser.add_argument("--not-before", type=moment, help="with its zone")
        parser.add_argument("--expires-at", type=moment, help="with its zone")
        parser.add_argument(
            "--clear",
            action="append",
            default=[],
            choices=["not_before", "expires_at"],
            help="no such time any more; may be repeated",
        )
        parser.add_argument("--reason", default="")

    def handle(self, *args: Any, **options: Any) -> None:
        key = key_named(options["key"])
        fields = {name: options[name] for name in lifecycle.EDITABLE if options.get(name) is not None}
        fields |= dict.fromkeys(options["clear"])
        if not fields:
            raise CommandError("Say what to change, such as --scope deed:read.")
        with refusals_as_command_errors():
            lifecycle.change(Actor.command("change_key"), key, reason=options["reason"], **fields)
        self.stdout.write(f"{key.prefix}: {', '.join(f'{name} = {getattr(key, name)}' for name in fields)}")
