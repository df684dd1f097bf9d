"""Who is told: inbound sources, outbound endpoints and their deliveries."""

from django.apps import AppConfig


class WebhooksConfig(AppConfig):
    name = "webhooks"
    verbose_name = "Webhooks"

    def ready(self) -> None:
        from partner_api.ops.metrics import register_collector  # noqa: PLC0415 - it needs the settings
        from partner_api.ops.watching import register_watch  # noqa: PLC0415 - it needs the models
        from webhooks import looks, metrics, receivers  # noqa: F401, PLC0415 - importing connects the receivers

        register_collector(metrics.waiting)
        register_collector(looks.not_made)
        register_watch("inbound_needs_attention", looks.inbound_needs_attention)
