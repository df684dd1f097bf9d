"""Suspends or reactivates a partner, or sets what it may use, from the command line."""

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from keys import lifecycle
from keys.audit import Actor
from keys.management.finding import money, partner_named, reason, refusals_as_command_errors
from keys.models import Partner


class Command(BaseCommand):
    help = "Change a partner. A suspension refuses all of its keys from the next request on."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("partner", help="the partner's name or id")
        parser.add_argument("--status", choices=Partner.Status.values)
        parser.add_argument("--name", help="its new name")
        parser.add_argument("--contact-email", help="empty for none")
        parser.add_argument("--monthly-deed-quota", type=int)
        parser.add_argument("--monthly-request-quota", type=int)
        parser.add_argument("--budget-cap", type=money)
        parser.add_argument("--key-max-age-days", type=int)
        parser.add_argument(
            "--clear",
            action="append",
            default=[],
            choices=["monthly_deed_quota", "monthly_request_quota", "budget_cap", "key_max_age_days"],
            help="no such bound any more; may be repeated",
        )
        parser.add_argument("--reason", required=True, type=reason)

    def handle(self, *args: Any, **options: Any) -> None:
        partner = partner_named(options["partner"])
        if partner is None:
            message = f"There is no partner {options['partner']!r}."
            raise CommandError(message)
        fields = {name: options[name] for name in lifecycle.PARTNER_EDITABLE if options.get(name) is not None}
        fields |= dict.fromkeys(options["clear"])
        if not fields:
            raise CommandError("Say what to change, such as --status suspended.")
        with refusals_as_command_errors():
            by = Actor.command("change_partner")
            lifecycle.change_partner(by, partner, reason=options["reason"], **fields)
        self.stdout.write(
            f"{partner.name}: {', '.join(f'{name} = {getattr(partner, name)}' for name in fields)}"
        )
