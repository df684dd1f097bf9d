"""Who may call: partners, their API keys and scopes."""

from django.apps import AppConfig


class KeysConfig(AppConfig):
    name = "keys"
    verbose_name = "Partners and keys"

    def ready(self) -> None:
        from keys import (  # noqa: PLC0415 - they need the models
            expiry,
            openapi,  # noqa: F401 - importing registers the scheme
        )
        from partner_api.ops.metrics import register_collector  # noqa: PLC0415 - it needs the settings

        register_collector(expiry.expiring_soon)
