"""Whether the process lives, and whether what it stands on answers.

Apps register what they need; each check runs in a thread of its own and is given one second, so that
a dependency that hangs shows as such and not as a hanging probe. A check that still hangs from an
earlier look is not started again: however many probes come, it holds one thread.
"""

import concurrent.futures
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

import psycopg
import structlog
from celery import current_app
from django.conf import settings
from django.core.cache import caches
from django.db import connection
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

# What a check returns is shown beside its latency; a `status` in it stands instead of "ok".
Check = Callable[[], dict[str, str] | None]

log = structlog.get_logger(__name__)
TIMEOUT_SECONDS = 0.8
_POOL_SECONDS = 0.3
_checks: dict[str, Check] = {}
_running: dict[str, concurrent.futures.Future[dict[str, Any]]] = {}
_lock = threading.Lock()


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
    """503 only without the database: orders can be accepted while any other is away.

    A database that takes no new connection and serves those that are open is `degraded`, which is 200.
    """

    http_method_names = ["get", "head"]
    scopes: ClassVar = {"GET": "public"}
    is_limited = False  # a probe must not be refused
    authentication_classes = []
    schema = None

    def get(self, request: Request) -> Response:
        results = look()
        is_down = results["database"]["status"] not in {"ok", "degraded"}
        is_degraded = any(result["status"] != "ok" for result in results.values())
        status = "unavailable" if is_down else "degraded" if is_degraded else "ok"
        return Response({"status": status, "dependencies": results}, status=503 if is_down else 200)


def look() -> dict[str, dict[str, Any]]:
    """Each dependency's status and latency in milliseconds. Reasons go to the log, not out."""
    started = time.monotonic()
    running = {name: _start(name, check) for name, check in _checks.items()}
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


def answers(name: str) -> bool:
    """Whether a dependency answers now; a check that hangs is waited for no longer than a probe would."""
    try:
        _start(name, _checks[name]).result(timeout=TIMEOUT_SECONDS)
    except Exception:  # noqa: BLE001 - whatever fails in a dependency's client is its answer
        return False
    return True


def _start(name: str, check: Check) -> "concurrent.futures.Future[dict[str, Any]]":
    """The check that runs already, or a new one."""
    with _lock:
        future = _running.get(name)
        if future is None or future.done():
            future = _running[name] = concurrent.futures.Future()
            threading.Thread(target=_run, args=(future, check), name=f"readyz-{name}", daemon=True).start()
        return future


def _run(future: "concurrent.futures.Future[dict[str, Any]]", check: Check) -> None:
    try:
        future.set_result(_timed(check))
    except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
        future.set_exception(error)


def connect_to_broker() -> Any:
    """A connection that is given a second, where the workers' own are given more."""
    patience = {"socket_timeout": 1, "socket_connect_timeout": 1}
    options = {**settings.CELERY_BROKER_TRANSPORT_OPTIONS, **patience}
    return current_app.connection_for_write(connect_timeout=1, transport_options=options)


def _timed(check: Check) -> dict[str, Any]:
    started = time.monotonic()
    try:
        shown = check() or {}
    finally:
        connection.close()
    return {"latency_ms": round((time.monotonic() - started) * 1000, 1), **shown}


def own_parameters() -> dict[str, Any]:
    """How the database is reached, as libpq wants it: what Django and its pool add is left out."""
    wanted: dict[str, Any] = connection.get_connection_params()
    for name in ("pool", "cursor_factory", "context", "prepare_threshold", "server_side_binding"):
        wanted.pop(name, None)
    return wanted


def own_connection(**options: Any) -> psycopg.Connection[Any]:
    """A connection beside the pool, from which one could be waited for as long as a query may take."""
    return psycopg.connect(**{**own_parameters(), "connect_timeout": 2, **options})


def _database() -> dict[str, str] | None:
    try:
        own_connection().close()
    except psycopg.errors.ConnectionTimeout:
        raise
    except psycopg.OperationalError:
        # Too many clients, or a password that was changed: of all pods at once, which go on serving by what
        # they have open.
        if not _does_pool_serve():
            raise
        return {"status": "degraded"}
    return None


def _does_pool_serve() -> bool:
    pool: Any = getattr(connection, "pool", None)
    if pool is None:
        return False
    try:
        with pool.connection(timeout=_POOL_SECONDS) as pooled:
            pooled.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True


def _redis() -> None:
    caches["default"].get("readyz")


def _broker() -> None:
    with connect_to_broker() as broker:
        # A Redis that hangs takes a connection; a channel is there only once it has answered.
        broker.default_channel  # noqa: B018 - opens it


register("database", _database)
register("redis", _redis)
register("broker", _broker)
