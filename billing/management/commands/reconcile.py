"""Compares deeds, ledger, meter events and invoice lines; exit code 1 when they differ."""

import argparse
import datetime as dt
import json
import sys
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from billing import reconciling
from billing.models import ReconciliationRun
from keys import audit
from keys.models import Partner


class Command(BaseCommand):
    help = "Compare the books: deeds, ledger, meter events, invoice lines. Exit code 1 on a variance."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--from", dest="start", type=_day, help="first day (UTC); 35 days ago without it")
        parser.add_argument("--to", dest="end", type=_day, help="last day (UTC); until now without it")
        parser.add_argument("--partner", help="a partner's name or id")
        parser.add_argument("--json", action="store_true", help="the result as JSON")
        parser.add_argument("--repair", action="store_true", help="repair the safe classes, then look again")

    def handle(self, *args: Any, **options: Any) -> None:
        end = options["end"] + dt.timedelta(days=1) if options["end"] else timezone.now()
        start = options["start"] or end - dt.timedelta(days=reconciling.DEFAULT_DAYS)
        if start >= end:
            message = "--from is after --to."
            raise CommandError(message)
        run = reconciling.run(
            start,
            end,
            partner=_partner(options["partner"]),
            actor=audit.Actor.command("reconcile"),
            is_repairing=options["repair"],
        )
        self.stdout.write(json.dumps(_facts(run), indent=2) if options["json"] else _text(run))
        if not run.is_clean:
            sys.exit(1)


def _facts(run: ReconciliationRun) -> dict[str, Any]:
    return {
        "id": str(run.pk),
        "from": run.starts_at.isoformat(),
        "to": run.ends_at.isoformat(),
        "total": run.total,
        "counts": run.counts,
        "repaired": run.repaired,
        "error": run.error or None,
        "variances": run.variances,
    }


def _text(run: ReconciliationRun) -> str:
    names = {str(partner.pk): partner.name for partner in Partner.objects.all()}
    lines = [
        f"{one['day']}  {one['kind']:<26} {names.get(one['partner_id'], one['partner_id'])}: "
        f"{one['subject']}: {one['detail']} ({one['repair']})"
        for one in run.variances
    ]
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(run.counts.items()))
    span = f"{run.starts_at:%Y-%m-%d %H:%M} to {run.ends_at:%Y-%m-%d %H:%M}"
    result = run.error or (f"{run.total} variances: {counts}" if run.total else "0 variances")
    repaired = f", {run.repaired} repaired" if run.repaired else ""
    return "\n".join([*lines, f"{span}: {result}{repaired}"])


def _day(text: str) -> dt.datetime:
    try:
        return dt.datetime.combine(dt.date.fromisoformat(text), dt.time(), dt.UTC)
    except ValueError as error:
        message = f"{text!r} is no day like 2026-11-24"
        raise argparse.ArgumentTypeError(message) from error


def _partner(wanted: str | None) -> Partner | None:
    if not wanted:
        return None
    found = Partner.objects.filter(name=wanted).first()
    if found is None:
        try:
            found = Partner.objects.filter(pk=UUID(wanted)).first()
        except ValueError:
            pass
    if found is None:
        message = f"There is no partner {wanted!r}."
        raise CommandError(message)
    return found
