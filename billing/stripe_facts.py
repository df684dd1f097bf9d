"""What we tell Stripe and what it answers, as facts of ours: nothing else has to know its objects.

The readers take the SDK's objects; only what the product needs is read of them.
"""

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import Any


@dataclass(frozen=True)
class MeterEvent:
    """`identifier` is unique for ever on our side; `timestamp` in Unix seconds."""

    event_name: str
    customer: str
    value: int
    identifier: str
    timestamp: int
    dimensions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class PriceTerms:
    """A price as we want it, for an item of the contract or its fee.

    Amounts are minor units; `tiers` are (up to, or None for the rest; amount).
    """

    item: str
    lookup_key: str
    product: str
    currency: str
    nickname: str
    tiers: tuple[tuple[int | None, Decimal], ...]
    meter: str = ""


@dataclass(frozen=True)
class PriceFacts:
    id: str
    terms: str


@dataclass(frozen=True)
class CustomerFacts:
    id: str
    is_deleted: bool
    default_payment_method: str


@dataclass(frozen=True)
class CardFacts:
    """Of a payment method of another kind only the brand, which is its kind, is certain."""

    brand: str
    last4: str
    expires: str


@dataclass(frozen=True)
class SubscriptionFacts:
    """`ends_at` is when it ended, or is to end; None for one that goes on."""

    id: str
    contract: str
    starts_at: dt.datetime
    ends_at: dt.datetime | None


@dataclass(frozen=True)
class LineFacts:
    """`price` is empty for an invoice item, whose `metadata` then says what it is."""

    id: str
    description: str
    quantity: int
    amount: int
    unit_amount: Decimal | None
    price: str
    starts_at: dt.datetime
    ends_at: dt.datetime
    metadata: dict[str, str]


@dataclass(frozen=True)
class InvoiceFacts:
    """Amounts are minor units."""

    id: str
    customer: str
    status: str
    number: str
    currency: str
    subtotal: int
    total: int
    amount_paid: int
    amount_due: int
    is_automatic: bool
    billing_reason: str
    subscription: str
    starts_at: dt.datetime
    ends_at: dt.datetime
    created_at: dt.datetime
    due_at: dt.datetime | None
    finalized_at: dt.datetime | None
    paid_at: dt.datetime | None
    hosted_url: str
    pdf_url: str
    lines: tuple[LineFacts, ...]


@dataclass(frozen=True)
class WebhookFacts:
    id: str
    kind: str
    livemode: bool
    created_at: dt.datetime
    object_id: str
    customer: str


def read_customer(found: Any) -> CustomerFacts:
    facts = found.to_dict()
    is_deleted = bool(facts.get("deleted"))
    method = (facts.get("invoice_settings") or {}).get("default_payment_method")
    return CustomerFacts(facts["id"], is_deleted, _id(method))


def read_card(found: Any) -> CardFacts:
    """Of a payment method, which has the details of its own kind alone."""
    facts = found.to_dict()
    details = facts.get(facts["type"]) or {}
    year, month = details.get("exp_year"), details.get("exp_month")
    expires = f"{year}-{month:02}" if year and month else ""
    brand = details.get("brand") or facts["type"]
    return CardFacts(brand[:40], (details.get("last4") or "")[:4], expires)


def read_subscription(found: Any) -> SubscriptionFacts:
    facts = found.to_dict()
    return SubscriptionFacts(
        id=facts["id"],
        contract=metadata_of(facts).get("contract", ""),
        starts_at=moment_of(facts["start_date"]),
        # One that was cancelled at once keeps the later end it had.
        ends_at=_moment_or_none(facts.get("ended_at") or facts.get("cancel_at")),
    )


def read_invoice(found: Any, lines: list[Any]) -> InvoiceFacts:
    facts = found.to_dict()
    moments = facts["status_transitions"]
    parent = (facts.get("parent") or {}).get("subscription_details") or {}
    return InvoiceFacts(
        id=facts["id"],
        customer=_id(facts["customer"]),
        status=facts["status"] or "draft",
        number=facts.get("number") or "",
        currency=facts["currency"].upper(),
        subtotal=facts["subtotal"],
        total=facts["total"],
        amount_paid=facts["amount_paid"],
        amount_due=facts["amount_remaining"],
        is_automatic=bool(facts["auto_advance"]),
        billing_reason=facts.get("billing_reason") or "",
        subscription=_id(parent.get("subscription")),
        starts_at=moment_of(facts["period_start"]),
        ends_at=moment_of(facts["period_end"]),
        created_at=moment_of(facts["created"]),
        due_at=_moment_or_none(facts.get("due_date")),
        finalized_at=_moment_or_none(moments.get("finalized_at")),
        paid_at=_moment_or_none(moments.get("paid_at")),
        hosted_url=facts.get("hosted_invoice_url") or "",
        pdf_url=facts.get("invoice_pdf") or "",
        lines=tuple(read_line(line) for line in lines),
    )


def read_line(found: Any) -> LineFacts:
    facts = found.to_dict()
    pricing = facts.get("pricing") or {}
    unit = pricing.get("unit_amount_decimal")
    return LineFacts(
        id=facts["id"],
        description=facts.get("description") or "",
        quantity=facts.get("quantity") or 0,
        amount=facts["amount"],
        unit_amount=Decimal(str(unit)) if unit is not None else None,
        price=_id((pricing.get("price_details") or {}).get("price")),
        starts_at=moment_of(facts["period"]["start"]),
        ends_at=moment_of(facts["period"]["end"]),
        metadata=metadata_of(facts),
    )


def read_event(event: Any) -> WebhookFacts:
    facts = event.to_dict()
    about = facts["data"]["object"]
    # What was taken from a customer names it only as what changed.
    before = facts["data"].get("previous_attributes") or {}
    of_another = about.get("customer") or before.get("customer")
    customer_id = about["id"] if about.get("object") == "customer" else of_another
    return WebhookFacts(
        id=facts["id"],
        kind=facts["type"],
        livemode=facts["livemode"],
        created_at=moment_of(facts["created"]),
        object_id=about.get("id") or "",
        customer=_id(customer_id),
    )


def metadata_of(facts: dict[str, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in (facts.get("metadata") or {}).items()}


def _id(reference: Any) -> str:
    """Of a reference that is an id, an expanded object, or nothing."""
    return str((reference.get("id") if isinstance(reference, dict) else reference) or "")


def moment_of(seconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def _moment_or_none(seconds: int | None) -> dt.datetime | None:
    return moment_of(seconds) if seconds is not None else None
