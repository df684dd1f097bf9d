"""What every process gets at its start: system checks, metrics, Sentry and traces where they are set.

And a warning of each variable of its environment that looks like a setting, but is none.
"""

import structlog
from django.apps import AppConfig
from django.conf import settings

log = structlog.get_logger(__name__)


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

        for name, meant in settings.MISSPELT_IN_ENVIRONMENT:
            log.warning("setting_misspelt", name=name, did_you_mean=meant)
        metrics.register_collector(watching.open_incidents)
        errors.start()
        tracing.start()
