"""Finance's pages; each model's stand in a module of their own."""

from billing.admin.analytics import AnalyticsAdmin
from billing.admin.contracts import ContractAdmin
from billing.admin.invoices import InvoiceAdmin
from billing.admin.ledger import LedgerEntryAdmin
from billing.admin.periods import BillingPeriodAdmin
from billing.admin.stripe import (
    ContractAtStripeAdmin,
    ReconciliationRunAdmin,
    StripeCustomerAdmin,
    StripeEventAdmin,
    StripeInvoiceAdmin,
    StripeLaneAdmin,
    StripeSubscriptionAdmin,
)

__all__ = [
    "AnalyticsAdmin",
    "BillingPeriodAdmin",
    "ContractAdmin",
    "ContractAtStripeAdmin",
    "InvoiceAdmin",
    "LedgerEntryAdmin",
    "ReconciliationRunAdmin",
    "StripeCustomerAdmin",
    "StripeEventAdmin",
    "StripeInvoiceAdmin",
    "StripeLaneAdmin",
    "StripeSubscriptionAdmin",
]
