"""What it costs: request log, contracts, quotas, ledger, and its mirror at Stripe."""

from django.apps import AppConfig


class BillingConfig(AppConfig):
    name = "billing"
    verbose_name = "Billing"

    def ready(self) -> None:
        from billing import (  # noqa: PLC0415 - they need the models
            alarms,
            checks,  # noqa: F401 - registered by being there
            quota_metrics,
            rate_refusals,
            stripe_variances,
        )
        from partner_api.ops.metrics import register_collector  # noqa: PLC0415 - beside them
        from partner_api.ops.watching import register_watch  # noqa: PLC0415 - beside them

        stripe_variances.register()
        quota_metrics.connect()
        register_watch("rate_limited_key", rate_refusals.rate_limited_keys)
        register_watch("ledger_unsynced", alarms.ledger_unsynced)
        register_watch("books_disagree", alarms.books_disagree)
        register_collector(alarms.unsynced_entries)
        register_collector(alarms.variances)
