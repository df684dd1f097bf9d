"""Issues an API key from the command line, and prints it once."""

import argparse
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from keys.models import ApiKey, Partner


class Command(BaseCommand):
    help = "Issue an API key for a partner. The key is printed once and kept nowhere."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("partner", help="the partner's name or id")
        parser.add_argument("--name", required=True, help="what the key is for")
        parser.add_argument("--environment", choices=ApiKey.Environment.values, default="test")
        parser.add_argument("--scope", action="append", default=[], help="may be repeated")
        parser.add_argument("--create-partner", action="store_true", help="make the partner if there is none")

    def handle(self, *args: Any, **options: Any) -> None:
        partner = self._partner(options["partner"], create=options["create_partner"])
        try:
            key, text = ApiKey.issue(
                partner,
                name=options["name"],
                environment=options["environment"],
                scopes=options["scope"],
            )
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from error
        self.stderr.write(f"Issued {key.prefix} for {partner.name}. It is shown this once:")
        self.stdout.write(text)

    def _partner(self, wanted: str, *, create: bool) -> Partner:
        found = Partner.objects.filter(name=wanted).first()
        if found is None:
            try:
                found = Partner.objects.filter(pk=wanted).first()
            except ValidationError:
                found = None
        if found is None and create:
            return Partner.objects.create(name=wanted)
        if found is None:
            message = f"There is no partner {wanted!r}; --create-partner makes one."
            raise CommandError(message)
        return found
