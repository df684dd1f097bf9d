"""What it costs: request log, contracts, quotas, ledger, and its mirror at Stripe."""

from django.apps import AppConfig


class BillingConfig(AppConfig):
    name = "billing"
    verbose_name = "Billing"

    def ready(self) -> None:
        from billing import quota_metrics  # noqa: PLC0415 - it is needed once apps are there

        quota_metrics.connect()
