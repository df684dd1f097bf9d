"""Who may call: partners, their API keys and scopes."""

from django.apps import AppConfig


class KeysConfig(AppConfig):
    name = "keys"
    verbose_name = "Partners and keys"

    def ready(self) -> None:
        from keys import openapi  # noqa: F401, PLC0415 - importing registers the scheme
