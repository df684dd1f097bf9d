"""Invoices: read whole, held back or let go, and the items that are put on them."""

import datetime as dt
from typing import Any

from billing import stripe_facts
from billing.stripe_client.sdk import PAGE, all_of, call, under, v1
from billing.stripe_facts import InvoiceFacts


def read(invoice_id: str) -> InvoiceFacts:
    """As it is now, with all its lines. Raises Gone."""
    found = call(lambda: v1().invoices.retrieve(invoice_id))
    params: Any = {"limit": PAGE}
    lines = all_of(lambda: v1().invoices.line_items.list(invoice_id, params))
    return stripe_facts.read_invoice(found, lines)


def hold(invoice_id: str, *, idempotency_key: str) -> None:
    """Stripe will not finalize it by itself."""
    params: Any = {"auto_advance": False}
    call(lambda: v1().invoices.update(invoice_id, params, under(idempotency_key)))


def release(invoice_id: str, *, idempotency_key: str) -> None:
    """Finalizes it now, with what aggregation has seen, and lets Stripe collect it."""
    params: Any = {"auto_advance": True}
    call(lambda: v1().invoices.finalize_invoice(invoice_id, params, under(idempotency_key)))


def find_item(customer_id: str, entry_id: str, *, since: dt.datetime) -> str | None:
    """The item that was made of an entry, on an invoice or not yet. It was made at `since` or later."""
    params: Any = {
        "customer": customer_id,
        "created": {"gte": int(since.timestamp())},
        "limit": PAGE,
    }
    listed = all_of(lambda: v1().invoice_items.list(params))
    return next(
        (one.id for one in listed if stripe_facts.metadata_of(one.to_dict()).get("entry") == entry_id), None
    )


def create_item(
    customer_id: str,
    *,
    amount: int,
    currency: str,
    description: str,
    metadata: dict[str, str],
    idempotency_key: str,
    invoice_id: str = "",
) -> str:
    """On a draft, or else on the next invoice. `amount` in minor units, negative for a credit."""
    params: dict[str, Any] = {
        "customer": customer_id,
        "amount": amount,
        "currency": currency.lower(),
        "description": description,
        "metadata": metadata,
    }
    if invoice_id:
        params["invoice"] = invoice_id
    return str(call(lambda: v1().invoice_items.create(params, under(idempotency_key))).id)
