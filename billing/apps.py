"""What it costs: request log, contracts, quotas, ledger, and its mirror at Stripe."""

from django.apps import AppConfig


class BillingConfig(AppConfig):
    name = "billing"
    verbose_name = "Billing"
