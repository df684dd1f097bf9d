"""Starts Postgres and Redis before Django's settings are read, once for all workers of a run.

Loaded by `-p` in pyproject.toml. With DATABASE_URL and REDIS_URL given, those servers are used.
"""

import fcntl
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from partner_api.local import engines

REDIS_DATABASES = 16
# What the workers of a run copy, and the file that is locked until it is migrated.
TEMPLATE = "TEST_DATABASE_TEMPLATE"
TEMPLATE_LOCK = "TEST_DATABASE_TEMPLATE_LOCK"


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
    # The template's trail is signed with it.
    SECRET_KEY=secrets.token_hex(32) if _worker is None else os.environ["SECRET_KEY"],
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


_migrations: list[subprocess.Popen[bytes]] = []


def pytest_configure(config: pytest.Config) -> None:
    if _worker is None and config.getoption("numprocesses", None):
        _migrate_a_template()


def _migrate_a_template() -> None:
    """Begins to migrate the database that all workers will copy: each for itself was half a minute."""
    url = os.environ["DATABASE_URL"]
    name = f"template_{secrets.token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as database:
        database.execute(f"CREATE DATABASE {name}")
    lock = Path(_folder.name) / "template.lock"
    os.environ.update({TEMPLATE: name, TEMPLATE_LOCK: str(lock)})
    with lock.open("w") as held, lock.with_suffix(".log").open("wb") as log:
        fcntl.flock(held, fcntl.LOCK_EX)
        # The process has the lock with the file, and so until it ends, however it ends.
        migration = subprocess.Popen(
            [sys.executable, "manage.py", "migrate", "--verbosity", "0"],
            env={**os.environ, "DATABASE_URL": urlsplit(url)._replace(path=f"/{name}").geturl()},
            cwd=Path(__file__).parent.parent,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[held.fileno()],
        )
        _migrations.append(migration)


def _drop_the_template() -> None:
    for migration in _migrations:
        migration.kill()
        migration.wait()
        with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as database:
            database.execute(f"DROP DATABASE {os.environ[TEMPLATE]} WITH (FORCE)")


def pytest_unconfigure(config: pytest.Config) -> None:
    if _worker is None:
        _drop_the_template()
        _running.__exit__(None, None, None)
    _folder.cleanup()
