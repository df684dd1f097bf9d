"""What partners order: the catalog, orders, and how a deed is made."""

from django.apps import AppConfig


class DeedsConfig(AppConfig):
    name = "deeds"
    verbose_name = "Deeds"

    def ready(self) -> None:
        from deeds import checks, circuit, storage  # noqa: F401, PLC0415 - they need models; checks register
        from partner_api.ops import health  # noqa: PLC0415 - its views need the settings

        health.register("storage", storage.check)
        health.register("main_api", circuit.check)
