"""Brings contracts to Stripe: customer, product, meters, prices, subscription."""

import argparse
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from billing import provisioning, stripe_client
from billing.models import Contract
from keys import audit
from keys.models import Partner


class Command(BaseCommand):
    help = "Make at Stripe what contracts say. Safe to run again: it changes nothing that is right."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--partner", help="a partner's name or id; all that have a contract without it")
        parser.add_argument("--dry-run", action="store_true", help="print the plan, make nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        if not stripe_client.is_configured():
            message = "STRIPE_SECRET_KEY is not set; there is nowhere to make anything."
            raise CommandError(message)
        actor = audit.Actor.command("stripe_provision")
        failed = 0
        for contract in _contracts(options["partner"]):
            self.stdout.write(f"{contract}")
            try:
                steps = provisioning.provision(contract, actor, is_dry_run=options["dry_run"])
            except (provisioning.NotNow, stripe_client.StripeFault) as fault:
                failed += 1
                self.stderr.write(f"  ! {fault}")
                continue
            for step in steps:
                self.stdout.write(f"  {step}")
        self.stdout.write("= is there, + " + ("would be made" if options["dry_run"] else "was made"))
        if failed:
            message = f"{failed} contracts are not at Stripe yet; run it again, it goes on where it was."
            raise CommandError(message)


def _contracts(wanted: str | None) -> list[Contract]:
    """In force now, or next, of one partner or of all."""
    partners = Partner.objects.order_by("name")
    if wanted:
        partners = partners.filter(name=wanted) or partners.filter(pk=_uuid(wanted))
        if not partners:
            message = f"There is no partner {wanted!r}."
            raise CommandError(message)
    today = timezone.now().date()
    found = [contract for partner in partners for contract in Contract.objects.current(partner.pk, today)]
    if wanted and not found:
        message = f"{partners[0].name} has no contract that runs or will."
        raise CommandError(message)
    return found


def _uuid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError as error:
        message = f"There is no partner {text!r}."
        raise CommandError(message) from error
