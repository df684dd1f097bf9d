"""The lines of Stripe's invoices as rows of ours: which entry, item or fee each of them bills."""

import uuid
from typing import Any

from billing.models import Contract, Invoice, InvoiceLine, LedgerEntry, Price
from billing.models.contract import REQUEST
from billing.pricing import major
from billing.stripe_facts import InvoiceFacts, LineFacts


def write(invoice: Invoice, facts: InvoiceFacts) -> None:
    """As many as Stripe has now. Call it in the transaction that writes the invoice."""
    invoice.lines.exclude(stripe_line_id__in=[line.id for line in facts.lines]).delete()
    for line in facts.lines:
        InvoiceLine.objects.update_or_create(
            stripe_line_id=line.id, defaults={"invoice": invoice, **_meaning(line, facts.currency)}
        )


def _meaning(line: LineFacts, currency: str) -> dict[str, Any]:
    """What a line of Stripe's stands for on our side."""
    unit = major(line.unit_amount, currency) if line.unit_amount is not None else None
    meaning: dict[str, Any] = {
        "description": line.description[:500],
        "quantity": max(0, line.quantity),
        "unit_price": unit,
        "amount": line.amount,
    }
    entry = _entry_of(line)
    if entry is not None:
        return {**meaning, "kind": entry.kind, "item": entry.item, "entry": entry}
    price = Price.objects.filter(stripe_price_id=line.price).first() if line.price else None
    if price is not None:
        kind = LedgerEntry.Kind.REQUESTS if price.item == REQUEST else LedgerEntry.Kind.DEED
        return {**meaning, "kind": kind, "item": price.item, "contract_id": price.contract_id}
    base = Contract.objects.filter(stripe_base_price_id=line.price).first() if line.price else None
    if base is not None:
        return {**meaning, "kind": LedgerEntry.Kind.BASE_FEE, "item": "base_fee", "contract": base}
    return {**meaning, "kind": LedgerEntry.Kind.ADJUSTMENT}


def _entry_of(line: LineFacts) -> LedgerEntry | None:
    try:
        return LedgerEntry.objects.filter(pk=uuid.UUID(line.metadata.get("entry", ""))).first()
    except ValueError:
        return None
