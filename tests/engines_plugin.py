"""Starts Postgres and Redis before Django's settings are read, once for all workers of a run.

Loaded by `-p` in pyproject.toml. With DATABASE_URL and REDIS_URL given, those servers are used.
"""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from partner_api.local import engines

REDIS_DATABASES = 16


@contextmanager
def _engines() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="partner-api-tests-") as folder:
        password = secrets.token_hex(16)
        children = []
        try:
            for variable, start in (
                ("REDIS_URL", engines.start_redis),
                ("DATABASE_URL", engines.start_postgres),
            ):
                if not os.environ.get(variable):
                    data = Path(folder) / variable.lower()
                    child, url = start(data, password=password, log=data.with_suffix(".log"), durable=False)
                    children.append(child)
                    os.environ[variable] = url
            yield
        finally:
            for child in children:
                child.stop(seconds=5)


_running = _engines()
_worker = os.environ.get("PYTEST_XDIST_WORKER")
if _worker is None:
    _running.__enter__()
else:
    _server, _, _ = os.environ["REDIS_URL"].rpartition("/")
    _number = int(_worker.removeprefix("gw")) + 1
    os.environ["REDIS_URL"] = f"{_server}/{_number % REDIS_DATABASES}"

_folder = tempfile.TemporaryDirectory(prefix="partner-api-var-")
os.environ.update(
    ENVIRONMENT="test",
    SECRET_KEY=secrets.token_hex(32),
    PUBLIC_BASE_URL="http://testserver",
    ALLOWED_HOSTS="testserver,127.0.0.1",
    VAR_DIR=_folder.name,
    MAIN_API_BASE_URL="http://127.0.0.1:9",
    MAIN_API_INTERNAL_TOKEN="main-api-token",
    SANDBOX_BASE_URL="http://127.0.0.1:9",
    SANDBOX_TOKEN="sandbox-token",
    FIELD_ENCRYPTION_KEYS=engines.fernet_key(),
    MAIN_API_RETRY_SECONDS="0.01",
    # What a slow machine must not decide: whether a key is still remembered when queries are counted.
    KEY_CACHE_SECONDS="600",
    LOG_LEVEL="WARNING",
    # No thread beside a test; those that need the rows call for them.
    USAGE_DRAIN_SECONDS="0",
)


def pytest_unconfigure(config: pytest.Config) -> None:
    _folder.cleanup()
    if _worker is None:
        _running.__exit__(None, None, None)
