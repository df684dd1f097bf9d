"""How a quota is told to its partner: the headers of an order's answer, and the problems of a refused one."""

import datetime as dt
from decimal import Decimal

from billing.models import BillingPeriod, Invoice
from billing.pricing import major
from keys.models import Partner
from partner_api.http.problems import Problem
from partner_api.http.times import rfc3339


def headers_of(period: BillingPeriod, quota: int | None) -> dict[str, str]:
    if quota is None:
        return {}
    limit = quota + period.extra_deeds
    remaining = max(0, limit - period.deeds_used - period.deeds_reserved)
    reset = int(period.ends_at.timestamp())
    return {"X-Quota-Limit": str(limit), "X-Quota-Remaining": str(remaining), "X-Quota-Reset": str(reset)}


def deeds_exceeded(period: BillingPeriod, limit: int, used: int) -> Problem:
    detail = (
        f"All {limit} deeds of this period are used or being made. The next period starts "
        f"{period.ends_at:%Y-%m-%d}; ask us for a larger quota, or for more in this period."
    )
    extra = {"limit": limit, "used": used, "resets_at": rfc3339(period.ends_at)}
    return Problem(
        "quota_exceeded", detail, headers=headers_of(period, limit - period.extra_deeds), extra=extra
    )


def requests_exceeded(period: BillingPeriod, limit: int, used: int) -> Problem:
    detail = (
        f"All {limit} requests of this period are used. The next period starts "
        f"{period.ends_at:%Y-%m-%d}; ask us for a larger quota, or for more in this period."
    )
    extra = {"quota": "requests", "limit": limit, "used": used, "resets_at": rfc3339(period.ends_at)}
    return Problem("quota_exceeded", detail, extra=extra)


def budget_exceeded(period: BillingPeriod, limit: Decimal, used: Decimal, currency: str) -> Problem:
    limit_text, used_text = (f"{major(amount, currency).normalize():f}" for amount in (limit, used))
    detail = (
        f"This deed would exceed this period's budget of {limit_text} {currency}. The next period starts "
        f"{period.ends_at:%Y-%m-%d}; ask us to raise the budget cap."
    )
    extra = {
        "limit": limit_text,
        "used": used_text,
        "currency": currency,
        "resets_at": rfc3339(period.ends_at),
    }
    return Problem("budget_exceeded", detail, extra=extra)


def payment_required(partner: Partner, now: dt.datetime) -> Problem:
    invoice = Invoice.objects.overdue(now).filter(partner=partner).earliest("grace_ends_at")
    due = f", due {invoice.due_at:%Y-%m-%d}," if invoice.due_at else ""
    detail = f"Invoice {invoice}{due} is not paid. Pay it and orders are accepted again at once."
    extra = {"invoice": str(invoice.pk), "pay_at": invoice.hosted_invoice_url or None}
    return Problem("payment_required", detail, extra=extra)
