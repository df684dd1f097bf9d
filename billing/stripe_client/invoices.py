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


def of_customer(customer_id: str) -> list[str]:
    """The ids of all its invoices."""
    params: Any = {"customer": customer_id, "limit": PAGE}
    return [invoice.id for invoice in all_of(lambda: v1().invoices.list(params))]


def hold(invoice_id: str) -> None:
    """Stripe will not finalize it by itself. Done again it changes nothing: it needs no key of ours."""
    params: Any = {"auto_advance": False}
    call(lambda: v1().invoices.update(invoice_id, params))


def release(invoice_id: str) -> None:
    """Finalizes it now, with what aggregation has seen, and lets Stripe collect it.

    Raises Refused for one that is final.
    """
    params: Any = {"auto_advance": True}
    call(lambda: v1().invoices.finalize_invoice(invoice_id, params))


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
    """On a draft, or else on the next invoice. `amount` in minor units, negative for a credit.

    `metadata` names its `entry`, by which `find_item` finds it. Raises StripeFault.
    """
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
