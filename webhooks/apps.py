"""Who is told: inbound sources, outbound endpoints and their deliveries."""

from django.apps import AppConfig


class WebhooksConfig(AppConfig):
    name = "webhooks"
    verbose_name = "Webhooks"

    def ready(self) -> None:
        from partner_api.ops.metrics import register_collector  # noqa: PLC0415 - it needs the settings
        from webhooks import metrics, receivers  # noqa: F401, PLC0415 - importing connects the receivers

        register_collector(metrics.waiting)
