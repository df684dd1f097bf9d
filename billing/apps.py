"""What it costs: request log, contracts, quotas, ledger, and its mirror at Stripe."""

from django.apps import AppConfig


class BillingConfig(AppConfig):
    name = "billing"
    verbose_name = "Billing"

    def ready(self) -> None:
        from billing import stripe_admin, stripe_variances  # noqa: F401, PLC0415 - they need the models

        stripe_variances.register()
