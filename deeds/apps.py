"""What partners order: the catalog, orders, and how a deed is made."""

from django.apps import AppConfig


class DeedsConfig(AppConfig):
    name = "deeds"
    verbose_name = "Deeds"

    def ready(self) -> None:
        from billing import reconciliation  # noqa: PLC0415 - it needs the models
        from deeds import charges, main_api, storage  # noqa: PLC0415 - they need the models
        from partner_api.ops import health  # noqa: PLC0415 - its views need the settings

        reconciliation.register_deeds(charges.completed)
        health.register("storage", storage.check)
        health.register("main_api", main_api.check)
