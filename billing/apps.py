"""What it costs: request log, contracts, quotas, ledger, and its mirror at Stripe."""

from django.apps import AppConfig


class BillingConfig(AppConfig):
    name = "billing"
    verbose_name = "Billing"

    def ready(self) -> None:
        from billing import dashboard, revenue, stripe_variances  # noqa: PLC0415 - they need the models

        dashboard.register_revenue(revenue.by_period)
        stripe_variances.register()
