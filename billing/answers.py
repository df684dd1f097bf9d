"""How invoices and a partner's account look from outside, and the classes that document it.

Money is a decimal string in the currency's main unit.
"""

import datetime as dt
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from django.utils import timezone
from pydantic import BaseModel, Field

from billing import invoicing, periods, prices
from billing.models import BillingPeriod, Contract, Invoice, InvoiceLine
from billing.pricing import exponent, major, minor
from keys.models import Partner
from partner_api.http.times import rfc3339

Status = Literal["draft", "open", "paid", "void", "uncollectible"]


def money(amount: Decimal | int, currency: str) -> str:
    """Minor units as a decimal string, such as "12.50"."""
    return f"{major(amount, currency):.{exponent(currency)}f}"


def invoice(row: Invoice, *, with_lines: bool) -> dict[str, Any]:
    """An invoice; `with_lines` as it is read by itself."""
    period = row.period
    answer: dict[str, Any] = {
        "id": str(row.pk),
        "object": "invoice",
        "status": row.status,
        "is_sent": row.is_sent,
        "number": row.number or None,
        "currency": row.currency,
        "period_start": rfc3339(period.starts_at) if period else None,
        "period_end": rfc3339(period.ends_at) if period else None,
        "subtotal": money(row.subtotal, row.currency),
        "tax": money(row.tax, row.currency),
        "total": money(row.total, row.currency),
        "amount_paid": money(row.amount_paid, row.currency),
        "amount_due": money(row.amount_due, row.currency),
        "created_at": rfc3339(row.created_at),
        "finalized_at": rfc3339(row.finalized_at),
        "due_at": rfc3339(row.due_at),
        "paid_at": rfc3339(row.paid_at),
        "hosted_invoice_url": row.hosted_invoice_url or None,
        "invoice_pdf_url": row.invoice_pdf_url or None,
    }
    if with_lines:
        answer["lines"] = [_line(line, row.currency) for line in row.lines.all()]
    return answer


def account(partner: Partner) -> dict[str, Any]:
    """What the running period has used and will cost, against what is allowed."""
    now = timezone.now()
    period = periods.at(partner, now)
    contract = Contract.objects.in_force(partner.pk, now.date())
    lines = invoicing.preview(period)
    unpaid = partner.invoices.filter(status=Invoice.Status.OPEN)
    return {
        "object": "billing",
        "period": {"start": rfc3339(period.starts_at), "end": rfc3339(period.ends_at)},
        "contract": _contract(contract) if contract else None,
        "quotas": _quotas(partner, period),
        "estimate": [
            {
                "currency": each,
                "total": money(total, each),
                "lines": [_line(line, each) for line in lines if line.currency == each],
            }
            for each, total in invoicing.totals(lines).items()
        ],
        "unpaid_invoices": [str(pk) for pk in unpaid.order_by("id").values_list("pk", flat=True)],
        "is_payment_required": Invoice.objects.overdue(now).filter(partner=partner).exists(),
    }


def _contract(contract: Contract) -> dict[str, Any]:
    return {
        "model": contract.model,
        "currency": contract.currency,
        "version": contract.version,
        "starts_on": contract.starts_on.isoformat(),
        "ends_on": contract.ends_on.isoformat() if contract.ends_on else None,
        "payment_terms_days": contract.payment_terms_days,
        "base_fee": f"{contract.base_fee.normalize():f}",
        "prices": [
            {
                "item": price.item,
                "after_quantity": price.after_quantity,
                "unit_price": f"{price.unit_price.normalize():f}",
            }
            for price in contract.prices.all()
        ],
    }


def _line(line: InvoiceLine | invoicing.Line, currency: str) -> dict[str, Any]:
    return {
        "kind": line.kind,
        "item": line.item or None,
        "description": line.description,
        "quantity": line.quantity,
        "unit_price": None if line.unit_price is None else f"{line.unit_price.normalize():f}",
        "amount": money(line.amount, currency),
    }


def _quotas(partner: Partner, period: BillingPeriod) -> dict[str, Any]:
    currency = prices.currency_in(period)
    deeds, requests, cap = (partner.monthly_deed_quota, partner.monthly_request_quota, partner.budget_cap)
    budget = None if cap is None else money(minor(cap, currency) + period.extra_budget, currency)
    return {
        "deeds": {
            "limit": None if deeds is None else deeds + period.extra_deeds,
            "used": period.deeds_used,
            "reserved": period.deeds_reserved,
        },
        "requests": {
            "limit": None if requests is None else requests + period.extra_requests,
            "used": period.requests_used,
            "reserved": 0,
        },
        "budget": {
            "limit": budget,
            "used": money(period.money_used, currency),
            "reserved": money(period.money_reserved, currency),
        },
    }


class InvoiceLineAnswer(BaseModel):
    kind: Literal["deed", "requests", "base_fee", "adjustment", "credit", "carry_over"]
    item: str | None = Field(
        description="The item of the contract: a deed type, `deed`, `reissue`, `request`."
    )
    description: str
    quantity: int
    unit_price: str | None
    amount: str


class InvoiceSummary(BaseModel):
    """An invoice, without its lines."""

    id: UUID
    object: Literal["invoice"]
    status: Status
    is_sent: bool = Field(description="False for a draft that was not sent.")
    number: str | None
    currency: str
    period_start: dt.datetime | None
    period_end: dt.datetime | None
    subtotal: str
    tax: str
    total: str
    amount_paid: str
    amount_due: str
    created_at: dt.datetime
    finalized_at: dt.datetime | None
    due_at: dt.datetime | None
    paid_at: dt.datetime | None
    hosted_invoice_url: str | None
    invoice_pdf_url: str | None


class InvoiceAnswer(InvoiceSummary):
    """An invoice."""

    lines: list[InvoiceLineAnswer]


class InvoicePage(BaseModel):
    """A page of invoices, newest first."""

    data: list[InvoiceSummary]
    next: str | None
    previous: str | None


class BillingSpan(BaseModel):
    start: dt.datetime
    end: dt.datetime


class PriceAnswer(BaseModel):
    item: str
    after_quantity: int = Field(description="The price is for what comes after so many in the period.")
    unit_price: str


class ContractAnswer(BaseModel):
    model: Literal["flat", "per_deed", "hybrid", "per_request"]
    currency: str
    version: int
    starts_on: dt.date
    ends_on: dt.date | None
    payment_terms_days: int
    base_fee: str
    prices: list[PriceAnswer]


class CountedQuota(BaseModel):
    limit: int | None = Field(description="With what was granted for this period; null: no bound.")
    used: int
    reserved: int = Field(description="Held by orders that are not finished.")


class MoneyQuota(BaseModel):
    limit: str | None
    used: str
    reserved: str


class Quotas(BaseModel):
    deeds: CountedQuota
    requests: CountedQuota
    budget: MoneyQuota


class Estimate(BaseModel):
    currency: str
    total: str
    lines: list[InvoiceLineAnswer]


class BillingAnswer(BaseModel):
    """The running period: what is used, what it will cost, what is allowed."""

    object: Literal["billing"]
    period: BillingSpan
    contract: ContractAnswer | None
    quotas: Quotas
    estimate: list[Estimate] = Field(
        description="By currency; as the invoice would be if nothing came any more."
    )
    unpaid_invoices: list[UUID]
    is_payment_required: bool
