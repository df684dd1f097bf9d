"""A month of deeds on its way to a Stripe twin: how many a second, and whether each cent arrives.

`python -m partner_api.local exec -- python -m bench.billing` on throw-away engines: 100,000 deeds of 50
partners, with answers lost, late, repeated and refused, two syncs at once; the twin is a process of its own.
"""

import argparse
import base64
import datetime as dt
import json
import os
import secrets
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import requests

from bench.harness import Bench, Figure, at_least, facts

if TYPE_CHECKING:
    from keys.models import Partner

KEY: Final = "sk_test_bench"
TYPES: Final = ("grant", "warranty", "interspousal", "quitclaim", "tax")
PRICES: Final = (("grant", 0, "12.50"), ("warranty", 0, "14.005"), ("deed", 0, "9.995"))
PATH: Final = "/v1/billing/meter_events"
# Each happens to about one call in five hundred.
FAULTS: Final = ("lost", "500_after", "429", "outage", "late")
# Some hundred answers to other customers overtake one that is late.
LATE_SECONDS: Final = 0.2
WANTED_RATE: Final = 500


def run(bench: Bench) -> list[Figure]:
    found = ledger_sync_rate()
    if found["violations"]:
        message = f"Stripe's rules were broken: {found['violations'][:3]}"
        raise RuntimeError(message)
    detail = facts(cpu_ms_per_entry=found["cpu_ms_per_entry"])
    return [at_least("ledger_sync_rate", found["ledger_sync_rate"], WANTED_RATE, f"entries/s, {detail}")]


def month(partners: int, entries: int, *, syncs: int = 2) -> dict[str, Any]:
    """The whole month with faults. `ok` when the sums by partner and type agree and no rule was broken."""
    from billing.models import LedgerEntry, StripeLane

    with _twin() as ask:
        holders = _partners(partners)
        _fill(holders, entries)
        ask("faults", faults=faults(max(1, entries // 500)))
        started = time.monotonic()
        while LedgerEntry.objects.pending().exists():
            _together(syncs)
            # What waited for a fault to pass has waited enough.
            StripeLane.objects.update(next_attempt_at=dt.datetime.now(dt.UTC))
        took = time.monotonic() - started
        state = ask("state")
        accepted = LedgerEntry.objects.filter(partner__in=holders, sync_state="accepted").count()
        found = differences(holders, state)
    is_ok = not found and not state["violations"] and accepted == entries == state["accepted"]
    return {
        "entries": entries,
        "partners": partners,
        "accepted": accepted,
        "at_stripe": state["accepted"],
        "differences": found,
        "violations": state["violations"],
        "seconds": round(took, 1),
        "rate": round(entries / took),
        "ok": is_ok,
    }


def ledger_sync_rate(entries: int = 5_000, *, partners: int = 25) -> dict[str, Any]:
    """Entries a second without faults. `ok` from 500 on."""
    from billing import syncing
    from billing.models import LedgerEntry

    with _twin() as ask:
        _fill(_partners(partners), entries)
        started, busy = time.monotonic(), time.process_time()
        while LedgerEntry.objects.pending().exists():
            syncing.sync()
        rate = entries / (time.monotonic() - started)
        cpu_ms = (time.process_time() - busy) / entries * 1000
        violations = ask("state")["violations"]
    return {
        "ledger_sync_rate": round(rate),
        # What a busy machine can't change: our own work on one entry.
        "cpu_ms_per_entry": round(cpu_ms, 2),
        "violations": violations,
        "ok": rate >= WANTED_RATE and not violations,
    }


def _partners(count: int) -> list["Partner"]:
    from keys.models import Partner

    made = []
    for _ in range(count):
        partner = Partner.objects.create(name=f"Bench {uuid.uuid4().hex[:12]}")
        open_account(partner)
        made.append(partner)
    return made


def open_account(partner: "Partner") -> None:
    """A contract with PRICES from the first of the month, and what Stripe needs for it."""
    from django.utils import timezone

    from billing import contracts, provisioning
    from keys import audit

    actor = audit.Actor.command("bench.billing")
    terms = {"model": "per_deed", "starts_on": timezone.now().date().replace(day=1)}
    rows = [(item, after, Decimal(price)) for item, after, price in PRICES]
    provisioning.provision(contracts.agree(partner, terms, rows, actor), actor)


def _fill(partners: list["Partner"], entries: int) -> None:
    """Charges one deed of each partner and type, and then as many more like them, over the month so far."""
    from django.db import transaction
    from django.utils import timezone

    from billing import ledger
    from billing.ledger import DeedFacts
    from billing.models import LedgerEntry

    now = timezone.now()
    passed = now - now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    templates = []
    for partner in partners:
        for kind in TYPES:
            with transaction.atomic():
                facts = DeedFacts(
                    partner, uuid.uuid4(), kind, livemode=True, is_reissue=False, completed_at=now
                )
                templates.append(ledger.charge(facts))
    fields = [field.attname for field in LedgerEntry._meta.fields if field.attname != "id"]  # noqa: SLF001 - Django's documented name
    batch = []
    for number in range(entries - len(templates)):
        like = templates[number % len(templates)]
        copy = LedgerEntry(**{name: getattr(like, name) for name in fields})
        copy.source_id = str(uuid.uuid4())
        copy.occurred_at = now - passed * (number / entries)
        batch.append(copy)
    LedgerEntry.objects.bulk_create(batch, batch_size=5000)


def differences(partners: list["Partner"], state: dict[str, Any]) -> list[str]:
    """Partner and type where the twin's count, at the contract's price, is not the ledger's sum."""
    from django.db.models import Sum

    from billing.models import LedgerEntry, StripeCustomer

    prices = {item: Decimal(price) * 100 for item, _, price in PRICES}
    customers = dict(StripeCustomer.objects.values_list("partner", "customer_id"))
    found = []
    for partner in partners:
        own = Counter(state["sums"].get(customers.get(partner.pk, ""), {}))
        rows = LedgerEntry.objects.filter(partner=partner).values("deed_type").annotate(sum=Sum("amount"))
        for row in rows:
            kind = row["deed_type"]
            theirs = own[kind] * prices.get(kind, prices["deed"])
            if theirs != row["sum"]:
                found.append(f"{partner.name} {kind}: ledger {row['sum']}, Stripe {theirs}")
    return found


def _together(syncs: int) -> None:
    from django.db import connection

    from billing import syncing

    def run() -> None:
        try:
            syncing.sync()
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(syncs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def faults(times: int, *, chance: float = 0.002) -> list[dict[str, Any]]:
    """What goes wrong with meter events on their way, each kind so often and by this chance."""
    where = {"path": PATH, "method": "POST", "times": times, "chance": chance, "seconds": LATE_SECONDS}
    return [where | {"kind": kind} for kind in FAULTS]


def ask_twin(url: str, what: str, **body: Any) -> Any:
    """One of the twin's controls."""
    headers = {"Authorization": f"Bearer {KEY}"}
    return requests.post(f"{url}/_twin/{what}", json=body, headers=headers, timeout=60).json()


def pointed_at(url: str) -> dict[str, Any]:
    """The product's settings for this twin."""
    return {
        "STRIPE_SECRET_KEY": KEY,
        "STRIPE_API_BASE": url,
        "STRIPE_MAX_NETWORK_RETRIES": 0,
    }


@contextmanager
def _twin() -> Iterator[Any]:
    """A twin in a process of its own, with the product pointed at it; gives what asks its controls."""
    from django.test import override_settings

    command = [sys.executable, "-m", "partner_api.local.stripe_twin"]
    environment = {**os.environ, "STRIPE_SECRET_KEY": KEY}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        url = (process.stdout.readline() if process.stdout else "").strip()
        try:
            with override_settings(**pointed_at(url)):
                yield partial(ask_twin, url)
        finally:
            process.terminate()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--partners", type=int, default=50)
    parser.add_argument("--rate-entries", type=int, default=10_000)
    arguments = parser.parse_args()
    os.environ.update(
        ENVIRONMENT="test",
        DJANGO_SETTINGS_MODULE="partner_api.settings",
        SECRET_KEY=secrets.token_hex(32),
        FIELD_ENCRYPTION_KEYS=base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        PUBLIC_BASE_URL="http://127.0.0.1",
        LOG_LEVEL="ERROR",
        STRIPE_SYNC_RUN_SECONDS="600",
        DATABASE_POOL_SIZE="40",
    )
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", interactive=False, verbosity=0)
    results = {
        "rate": ledger_sync_rate(arguments.rate_entries),
        "month": month(arguments.partners, arguments.entries),
    }
    print(json.dumps(results, indent=2))
    return 0 if all(result["ok"] for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
