"""What partners order: the catalog, orders, and how a deed is made."""

from django.apps import AppConfig


class DeedsConfig(AppConfig):
    name = "deeds"
    verbose_name = "Deeds"

    def ready(self) -> None:
        from deeds import backlog, main_api, metrics, storage  # noqa: PLC0415 - they need the models
        from deeds.signals import deed_settled  # noqa: PLC0415 - beside them
        from partner_api.ops import health, watching  # noqa: PLC0415 - its views need the settings
        from partner_api.ops.metrics import register_collector  # noqa: PLC0415 - beside them

        health.register("storage", storage.check)
        health.register("main_api", main_api.check)
        register_collector(backlog.backlog)
        watching.register_watch("main_api_failing", backlog.main_api_failing)
        deed_settled.connect(metrics.count_settled, dispatch_uid="deeds.metrics")
