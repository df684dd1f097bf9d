"""Logs: one JSON object a line, with the request id, from every process; readable lines on demand.

Standard-library loggers (Django's, Celery's, gunicorn's) go through the same processors as ours, so that
one format reaches the log collector. Code that logs leaves out what must not be logged; the last step
here takes out what slipped through.
"""

from typing import Any, Final

import structlog

from partner_api.ops.redaction import redact

_SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
]


FORMATS: Final = ("json", "console")
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def logging_config(*, level: str, log_format: str) -> dict[str, Any]:
    """The value of Django's LOGGING. `level` is one of LEVELS, `log_format` one of FORMATS.

    Raises ValueError for another format.
    """
    if log_format not in FORMATS:
        message = f"LOG_FORMAT is {log_format!r}; it can be 'json' or 'console'"
        raise ValueError(message)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    draw: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if log_format == "json"
        # The richer tracebacks show local variables, and with them keys and orders.
        else [structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)]
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "lines": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": _SHARED,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    *draw[:-1],
                    _Redacted(draw[-1]),
                ],
            },
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # Each refused request is in the access log with its code; a second line says no more.
            "django.request": {"level": "ERROR"},
            "django.security": {"level": "ERROR"},
            "celery.app.trace": {"level": "WARNING"},
            "celery.worker.strategy": {"level": "WARNING"},
            "pypdf": {"level": "ERROR"},
        },
    }


class _Redacted:
    """A renderer whose line has lost its secrets."""

    def __init__(self, draw: structlog.typing.Processor) -> None:
        self.draw = draw

    def __call__(self, logger: Any, name: str, event: structlog.typing.EventDict) -> str:
        return redact(str(self.draw(logger, name, event)))
