"""Whether the process lives, and whether what it stands on answers.

Apps register what they need; each check runs in a thread of its own and is given one second, so that
a dependency that hangs shows as such and not as a hanging probe.
"""

import concurrent.futures
import time
from collections.abc import Callable
from typing import Any, ClassVar

import structlog
from celery import current_app
from django.core.cache import caches
from django.db import connection
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

# What a check returns is shown beside its latency; a `status` in it stands instead of "ok".
Check = Callable[[], dict[str, str] | None]

log = structlog.get_logger(__name__)
TIMEOUT_SECONDS = 0.9
_checks: dict[str, Check] = {}
_pool = concurrent.futures.ThreadPoolExecutor(max_workers=12, thread_name_prefix="readyz")


def register(name: str, check: Check) -> None:
    """Adds a dependency. `check` returns when it answers, and raises when it doesn't."""
    _checks[name] = check


class Health(APIView):
    http_method_names = ["get", "head"]
    scopes: ClassVar = {"GET": "public"}
    is_limited = False  # a probe must not be refused
    authentication_classes = []
    schema = None

    def get(self, request: Request) -> Response:
        return Response({"status": "ok"})


class Readiness(APIView):
    """503 only without the database: orders can be accepted while any other is away."""

    http_method_names = ["get", "head"]
    scopes: ClassVar = {"GET": "public"}
    is_limited = False  # a probe must not be refused
    authentication_classes = []
    schema = None

    def get(self, request: Request) -> Response:
        results = look()
        is_down = results["database"]["status"] != "ok"
        is_degraded = any(result["status"] != "ok" for result in results.values())
        status = "unavailable" if is_down else "degraded" if is_degraded else "ok"
        return Response({"status": status, "dependencies": results}, status=503 if is_down else 200)


def look() -> dict[str, dict[str, Any]]:
    """Each dependency's status and latency in milliseconds. Reasons go to the log, not out."""
    started = time.monotonic()
    running = {name: _pool.submit(_timed, check) for name, check in _checks.items()}
    results = {}
    for name, future in running.items():
        left = max(0.0, TIMEOUT_SECONDS - (time.monotonic() - started))
        try:
            results[name] = {"status": "ok", **future.result(timeout=left)}
        except concurrent.futures.TimeoutError:
            results[name] = {"status": "timeout", "latency_ms": None}
        except Exception as error:  # noqa: BLE001 - whatever fails in a dependency's client is its answer
            log.warning("dependency_unavailable", dependency=name, reason=type(error).__name__)
            results[name] = {"status": "unavailable", "latency_ms": None}
    return results


def _timed(check: Check) -> dict[str, Any]:
    started = time.monotonic()
    try:
        shown = check() or {}
    finally:
        connection.close()
    return {"latency_ms": round((time.monotonic() - started) * 1000, 1), **shown}


def _database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _redis() -> None:
    caches["default"].get("readyz")


def _broker() -> None:
    with current_app.connection_for_write(connect_timeout=1) as broker:
        broker.ensure_connection(max_retries=1, timeout=1)


register("database", _database)
register("redis", _redis)
register("broker", _broker)
