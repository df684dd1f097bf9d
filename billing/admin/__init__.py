"""Finance's pages; each model's stand in a module of their own."""

from billing.admin.analytics import AnalyticsAdmin
from billing.admin.contracts import ContractAdmin
from billing.admin.invoices import InvoiceAdmin
from billing.admin.ledger import LedgerEntryAdmin
from billing.admin.periods import BillingPeriodAdmin

__all__ = ["AnalyticsAdmin", "BillingPeriodAdmin", "ContractAdmin", "InvoiceAdmin", "LedgerEntryAdmin"]
