"""Sentry, where SENTRY_DSN is set: that something broke, where, and for whom; never what was sent.

An event keeps the exception's type, the stack without variables, the route, and three tags (request id,
partner, key prefix) that lead to the log. Bodies, headers, cookies, queries, messages of exceptions
(Postgres and pydantic quote values in them) and breadcrumbs stay here.
"""

from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from django.conf import settings

from partner_api.ops.redaction import redact

_TAGS: Final = ("request_id", "partner", "key", "deed", "task")
_KEPT_OF_REQUEST: Final = ("method",)
# What the SDK gathers at all; `scrub` then drops what it does not know.
_COLLECTED: Final[Any] = {
    "user_info": False,
    "cookies": {"mode": "off"},
    "http_headers": {"request": {"mode": "off"}, "response": {"mode": "off"}},
    "http_bodies": [],
    "url_query_params": {"mode": "off"},
    "database_query_data": False,
    "queues": False,
    "stack_frame_variables": False,
}


def start(**options: Any) -> None:
    """Does nothing, and imports nothing, without a DSN. `options` are further ones of sentry_sdk.init."""
    if not settings.SENTRY_DSN:
        return
    import sentry_sdk  # noqa: PLC0415 - where it is off it costs nothing

    sentry_sdk.init(
        dsn=settings.SENTRY_DSN,
        environment=settings.ENVIRONMENT,
        release=settings.VERSION,
        sample_rate=settings.SENTRY_SAMPLE_RATE,
        traces_sample_rate=settings.SENTRY_TRACES_SAMPLE_RATE or None,
        data_collection=_COLLECTED,
        max_breadcrumbs=0,
        before_send=scrub,
        before_send_transaction=scrub,
        # A Sentry that can't be reached must not hold the end of a process.
        shutdown_timeout=2,
        **options,
    )


def scrub(event: Any, hint: Any) -> Any:
    """The event with what may leave; anything that is not known here is dropped."""
    bound = structlog.contextvars.get_contextvars()
    event["tags"] = {name: str(bound[name]) for name in _TAGS if name in bound}
    request = event.get("request") or {}
    event["request"] = {name: request[name] for name in _KEPT_OF_REQUEST if name in request}
    if "url" in request:
        # The path without its query: links carry signatures there.
        event["request"]["url"] = urlsplit(request["url"]).path
    for exception in (event.get("exception") or {}).get("values", []):
        exception["value"] = ""
        for frame in (exception.get("stacktrace") or {}).get("frames", []):
            frame.pop("vars", None)
    if "logentry" in event:
        event["logentry"] = {"message": _name_of(hint.get("log_record"), event["logentry"])}
    for span in event.get("spans") or []:
        span.pop("data", None)
        span["description"] = span.get("op", "")
    contexts = event.get("contexts") or {}
    event["contexts"] = {name: contexts[name] for name in ("runtime", "trace") if name in contexts}
    event["contexts"].get("trace", {}).pop("data", None)
    for name in ("extra", "user", "breadcrumbs", "modules", "_meta"):
        event.pop(name, None)
    return event


def _name_of(record: Any, entry: dict[str, Any]) -> str:
    """The event's name alone: our log entries are dicts, and others' arguments are values."""
    message = getattr(record, "msg", entry.get("message"))
    if isinstance(message, dict):
        return str(message.get("event", ""))
    return redact(str(message or ""))[:200]
