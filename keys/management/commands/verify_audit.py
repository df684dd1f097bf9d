"""Checks that no entry of the audit trail was edited, removed or put in, and that the database refuses it."""

import argparse
import re
import sys
from typing import Any

from django.core.management.base import BaseCommand

from keys import audit_chain, audit_guard
from keys.models import AuditHead


class Command(BaseCommand):
    help = "Check the audit trail's chain. Exit code 1 names the first entry that does not fit."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--seen",
            action="append",
            type=_head,
            default=[],
            metavar="COUNT:HASH",
            help="a head that an earlier run printed, kept elsewhere; may be repeated",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        chain = audit_chain.verify(dict(options["seen"]))
        if chain.fault is not None:
            self.stderr.write(f"The audit trail is broken at {chain.fault}")
            sys.exit(1)
        if done := audit_guard.let_through():
            self.stderr.write(
                f"All {chain.count} entries are unbroken, but the database lets them be changed: its "
                f"triggers are gone or off ({'; '.join(done)}). "
                "Make them anew as keys/migrations/0002 and 0004 do."
            )
            sys.exit(1)
        self.stdout.write(f"{chain.count} entries, unbroken. Note this head, and keep it elsewhere:")
        self.stdout.write(str(AuditHead(count=chain.count, hash=chain.hash)))


def _head(text: str) -> tuple[int, str]:
    match = re.fullmatch(r"(\d{1,18}):([0-9a-f]{64})", text)
    if match is None:
        message = f"{text!r} is not COUNT:HASH as verify_audit prints it"
        raise argparse.ArgumentTypeError(message)
    return int(match[1]), match[2]
