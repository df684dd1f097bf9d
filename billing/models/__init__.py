"""Where Django looks for this app's models; each stands in a module of its own."""

from billing.models.contract import Contract, Price
from billing.models.invoice import Invoice, InvoiceLine
from billing.models.ledger import LedgerEntry
from billing.models.quota import BillingPeriod, PeriodCount, Reservation
from billing.models.reconciliation import ReconciliationRun
from billing.models.rollup import Analytics, Level, UsageDaily, UsageHourly
from billing.models.stripe import (
    ContractAtStripe,
    StripeCustomer,
    StripeEvent,
    StripeInvoice,
    StripeLane,
    StripeSubscription,
)
from billing.models.usage import ApiUsage

__all__ = [
    "Analytics",
    "ApiUsage",
    "BillingPeriod",
    "Contract",
    "ContractAtStripe",
    "Invoice",
    "InvoiceLine",
    "LedgerEntry",
    "Level",
    "PeriodCount",
    "Price",
    "ReconciliationRun",
    "Reservation",
    "StripeCustomer",
    "StripeEvent",
    "StripeInvoice",
    "StripeLane",
    "StripeSubscription",
    "UsageDaily",
    "UsageHourly",
]
