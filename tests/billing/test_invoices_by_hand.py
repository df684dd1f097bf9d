"""Invoices of every pricing model against those computed by hand in invoice_cases.toml."""

import datetime as dt
import tomllib
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import time_machine

from billing import contracts, invoicing, ledger, periods
from billing.ledger import DeedFacts
from billing.models import BillingPeriod, Invoice
from keys import audit
from keys.models import Partner
from tests.billing import rows

CASES = tomllib.loads((Path(__file__).parent / "invoice_cases.toml").read_text())["case"]
FINANCE = audit.Actor("staff", "finance")
NOON = dt.time(12)


def test_there_are_enough_cases_of_every_model() -> None:
    assert len(CASES) >= 40
    models = {terms["model"] for case in CASES for terms in case["contracts"]}
    assert models == {"flat", "per_deed", "hybrid", "per_request"}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_invoice_is_the_one_computed_by_hand(acme: Partner, case: Any) -> None:
    events: list[tuple[dt.datetime, Any]] = [
        *((_start_of(terms["starts_on"]), _agreed(acme, terms)) for terms in case["contracts"]),
        *(_made(acme, text) for text in case.get("deeds", [])),
        *(_requested(acme, text) for text in case.get("requests", [])),
        *(_corrected(acme, text) for text in case.get("corrections", [])),
    ]
    events.sort(key=lambda event: event[0])
    for moment, act in events:
        with time_machine.travel(moment, tick=False):
            act()
    last = max(
        [moment for moment, _ in events] + [_start_of(invoice["period"]) for invoice in case["invoices"]]
    )
    now = _start_of(case["until"]) if "until" in case else last + dt.timedelta(days=32)
    with time_machine.travel(now, tick=False):
        invoicing.close_ended(now=now)
    assert _drafted(acme) == [
        {
            "period": invoice["period"],
            "currency": invoice.get("currency", "USD"),
            "lines": sorted(invoice["lines"]),
            "total": invoice["total"],
        }
        for invoice in case["invoices"]
    ]
    for line in (line for invoice in Invoice.objects.all() for line in invoice.lines.all()):
        behind = list(invoicing.entries_of(line))
        assert sum(entry.quantity for entry in behind) == line.quantity
        assert abs(sum((entry.amount for entry in behind), Decimal(0)) - line.amount) <= Decimal("0.5")


def _drafted(partner: Partner) -> list[dict[str, Any]]:
    return [
        {
            "period": invoice.period.starts_at.date(),
            "currency": invoice.currency,
            "lines": sorted(
                f"{line.kind} {line.item or '-'} {line.quantity} {line.amount}"
                for line in invoice.lines.all()
            ),
            "total": invoice.total,
        }
        for invoice in partner.invoices.order_by("period__starts_at", "currency")
        if invoice.period is not None
    ]


def _start_of(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.UTC)


def _agreed(partner: Partner, terms: dict[str, Any]) -> Any:
    fields = {name: value for name, value in terms.items() if name != "prices"}
    fields["base_fee"] = Decimal(fields.get("base_fee", 0))
    rows = []
    for text in terms.get("prices", []):
        item, after, price = text.split()
        rows.append((item, int(after), Decimal(price)))
    return lambda: contracts.agree(partner, fields, rows, FINANCE)


def _made(partner: Partner, text: str) -> tuple[dt.datetime, Any]:
    moment, deed_type, count, *flags = text.split()
    at = dt.datetime.fromisoformat(moment).replace(tzinfo=dt.UTC)
    at = at if "T" in moment else dt.datetime.combine(at, NOON, dt.UTC)

    def act() -> None:
        for _ in range(int(count.removeprefix("x"))):
            facts = DeedFacts(
                partner,
                uuid.uuid4(),
                deed_type,
                livemode=True,
                is_reissue="reissue" in flags,
                completed_at=at,
            )
            assert ledger.charge(facts) is not None

    return at, act


def _requested(partner: Partner, text: str) -> tuple[dt.datetime, Any]:
    day, count = text.split()
    at = dt.datetime.combine(dt.date.fromisoformat(day), NOON, dt.UTC)

    def act() -> None:
        period = periods.at(partner, at)
        BillingPeriod.objects.filter(pk=period.pk).update(requests_used=period.requests_used + int(count))
        rows.used(partner, at.date(), int(count))

    return at, act


def _corrected(partner: Partner, text: str) -> tuple[dt.datetime, Any]:
    day, amount = text.split()
    at = dt.datetime.combine(dt.date.fromisoformat(day), NOON, dt.UTC)
    return at, lambda: ledger.correct(
        partner, int(amount), reason="as agreed", actor=FINANCE, source_id=str(uuid.uuid4())
    )
