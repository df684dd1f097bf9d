"""Issues an API key from the command line, and prints it once."""

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from keys import lifecycle
from keys.audit import Actor
from keys.management.finding import moment, partner_named, refusals_as_command_errors
from keys.models import ApiKey, Partner

BY = Actor.command("issue_key")


class Command(BaseCommand):
    help = "Issue an API key for a partner. The key is printed once and kept nowhere."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("partner", help="the partner's name or id")
        parser.add_argument("--name", required=True, help="what the key is for")
        parser.add_argument("--environment", choices=ApiKey.Environment.values, default="test")
        parser.add_argument("--scope", action="append", default=[], help="may be repeated")
        parser.add_argument("--allow", action="append", default=[], help="a network; may be repeated")
        parser.add_argument("--per-minute", type=int, help="sustained requests a minute")
        parser.add_argument("--burst", type=int, help="requests at once")
        parser.add_argument("--not-before", type=moment, help="with its zone")
        parser.add_argument("--expires-at", type=moment, help="with its zone")
        parser.add_argument("--create-partner", action="store_true", help="make the partner if there is none")

    def handle(self, *args: Any, **options: Any) -> None:
        given = {
            "allowed_cidrs": options.get("allow"),
            "rate_limit_per_minute": options.get("per_minute"),
            "rate_limit_burst": options.get("burst"),
            "not_before": options.get("not_before"),
            "expires_at": options.get("expires_at"),
        }
        # A partner that was made for the key is made with it, or not at all.
        with refusals_as_command_errors(), transaction.atomic():
            partner = self._partner(options["partner"], create=options["create_partner"])
            key, text = lifecycle.issue(
                BY,
                partner,
                name=options["name"],
                environment=options["environment"],
                scopes=options["scope"],
                **{name: value for name, value in given.items() if value is not None},
            )
        self.stderr.write(f"Issued {key.prefix} for {partner.name}. It is shown this once:")
        self.stdout.write(text)

    def _partner(self, wanted: str, *, create: bool) -> Partner:
        found = partner_named(wanted)
        if found is None and create:
            return lifecycle.create_partner(BY, name=wanted)
        if found is None:
            message = f"There is no partner {wanted!r}; --create-partner makes one."
            raise CommandError(message)
        return found
