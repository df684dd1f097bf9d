"""Who is told: inbound sources, outbound endpoints and their deliveries."""

from django.apps import AppConfig


class WebhooksConfig(AppConfig):
    name = "webhooks"
    verbose_name = "Webhooks"
