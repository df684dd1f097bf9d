"""What every process gets at its start: system checks, metrics, Sentry and traces where they are set."""

from django.apps import AppConfig


class OpsConfig(AppConfig):
    name = "partner_api.ops"
    label = "ops"

    def ready(self) -> None:
        from partner_api.ops import (  # noqa: PLC0415 - they need the settings
            checks,  # noqa: F401 - importing registers them
            errors,
            metrics,
            tracing,
            watching,
            worker_metrics,  # noqa: F401 - importing connects its signals
        )

        metrics.register_collector(watching.open_incidents)
        errors.start()
        tracing.start()
