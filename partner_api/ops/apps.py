"""Registers the system checks that refuse an insecure start."""

from django.apps import AppConfig


class OpsConfig(AppConfig):
    name = "partner_api.ops"
    label = "ops"

    def ready(self) -> None:
        from partner_api.ops import checks  # noqa: F401, PLC0415 - importing registers them
