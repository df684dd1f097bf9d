"""What partners order: the catalog, orders, and how a deed is made."""

from django.apps import AppConfig


class DeedsConfig(AppConfig):
    name = "deeds"
    verbose_name = "Deeds"

    def ready(self) -> None:
        from billing import cost_units, reconciliation  # noqa: PLC0415 - it needs the models
        from deeds import (  # noqa: PLC0415 - they need the models
            catalog,
            charges,
            checks,  # noqa: F401 - importing registers them
            circuit,
            looks,
            metrics,
            storage,
        )
        from deeds.signals import deed_settled  # noqa: PLC0415 - beside them
        from partner_api.ops import health, watching  # noqa: PLC0415 - its views need the settings
        from partner_api.ops.metrics import register_collector  # noqa: PLC0415 - beside them

        cost_units.know_deed_types(catalog.DEED_TYPES)
        reconciliation.register_deeds(charges.completed)
        health.register("storage", storage.check)
        health.register("main_api", circuit.check)
        register_collector(looks.backlog)
        register_collector(circuit.suspended, uses_database=False)
        watching.register_watch("main_api_failing", looks.main_api_failing)
        watching.register_watch("pdfs_lost", looks.pdfs_lost)
        deed_settled.connect(metrics.count_settled, dispatch_uid="deeds.metrics")
