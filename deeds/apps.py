"""What partners order: the catalog, orders, and how a deed is made."""

from django.apps import AppConfig


class DeedsConfig(AppConfig):
    name = "deeds"
    verbose_name = "Deeds"

    def ready(self) -> None:
        from deeds import looks, main_api, order_metrics, storage  # noqa: PLC0415 - they need the models
        from deeds.signals import deed_settled  # noqa: PLC0415 - beside them
        from partner_api.ops import health, watching  # noqa: PLC0415 - its views need the settings
        from partner_api.ops.metrics import register_collector  # noqa: PLC0415 - beside them

        health.register("storage", storage.check)
        health.register("main_api", main_api.check)
        register_collector(looks.backlog)
        watching.register_watch("main_api_failing", looks.main_api_failing)
        deed_settled.connect(order_metrics.count_settled, dispatch_uid="deeds.metrics")
