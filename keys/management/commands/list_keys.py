"""Lists keys, never their secrets."""

import argparse
import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from keys import bodies
from keys.management.finding import partner_named
from keys.models import ApiKey


class Command(BaseCommand):
    help = "List API keys with their state, scopes, limits and last use."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--partner", help="the partner's name or id")
        parser.add_argument(
            "--due",
            action="store_true",
            help="only those that are due for rotation by their policy, or soon are",
        )
        parser.add_argument("--json", action="store_true", help="one JSON object a line")

    def handle(self, *args: Any, **options: Any) -> None:
        keys = ApiKey.objects.select_related("partner").order_by("partner__name", "-created_at")
        if options["partner"]:
            partner = partner_named(options["partner"])
            if partner is None:
                message = f"There is no partner {options['partner']!r}."
                raise CommandError(message)
            keys = keys.filter(partner=partner)
        now = timezone.now()
        for key in keys.due_for_rotation(now) if options["due"] else keys:
            facts = bodies.answer(key, now)
            if options["json"]:
                self.stdout.write(json.dumps({"partner": key.partner.name, **facts}, default=str))
                continue
            used = f"used {key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never used"
            scopes = " ".join(key.scopes) or "no scope"
            self.stdout.write(
                f"{key.prefix}  {key.partner.name}  {key.name}  {facts['state']}  {scopes}  {used}"
            )
