"""What every test stands on: partners with keys, a client, and a Main API on real HTTP."""

import copy
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
from django.apps import apps
from django.conf import settings as the_settings
from django.db import connection
from django.test import Client, TransactionTestCase
from django.urls import get_resolver
from django_redis import get_redis_connection
from psycopg import sql

from deeds import backlog
from deeds.catalog import DEED_TYPES
from deeds.sandbox.app import SandboxApp
from keys import audit
from keys.models import AuditHead, Partner
from tests.api import Api
from tests.engines_plugin import TEMPLATE, TEMPLATE_LOCK
from tests.staff import hire, log_in

TABLES_OF_ROLES = {"django_content_type", "auth_permission", "auth_group", "auth_group_permissions"}


def pytest_configure(config: pytest.Config) -> None:
    # A client of Django's builds the whole chain of middleware; looking through all static files each time
    # was a fifth of the suite.
    the_settings.WHITENOISE_AUTOREFRESH = True


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    """Where a run has several workers, each copies the database that was migrated for all."""
    if TEMPLATE in os.environ:
        with Path(os.environ[TEMPLATE_LOCK]).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
        connection.settings_dict["TEST"]["TEMPLATE"] = os.environ[TEMPLATE]


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    # Every view is loaded before the first request, as a web process does: not by many threads at once.
    get_resolver().reverse_dict  # noqa: B018 - looking is what loads it
    with django_db_blocker.unblock():
        _let_tables_be_emptied()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", _empty)
        yield
    # Postgres has not noticed yet that the processes of the last test are gone; the database can't be
    # dropped as long as it holds their sessions.
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def _let_tables_be_emptied() -> None:
    """Tests with real transactions empty all tables afterwards; append-only ones refuse that elsewhere."""
    of_truncate = (
        "SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE NOT tgisinternal AND tgtype & 32 <> 0"
    )
    with connection.cursor() as cursor:
        cursor.execute(of_truncate)
        for table, trigger in cursor.fetchall():
            cursor.execute(f'ALTER TABLE {table} DISABLE TRIGGER "{trigger}"')


def _empty(case: TransactionTestCase) -> None:
    """What Django's flush does, for the tables that a test wrote to. The roles stay: to make them anew after
    each test took longer than most tests do."""
    tables = sorted(
        {model._meta.db_table for model in apps.get_models(include_auto_created=True)} - TABLES_OF_ROLES
    )
    with connection.cursor() as cursor:
        looks = (sql.SQL("EXISTS (SELECT FROM {})").format(sql.Identifier(table)) for table in tables)
        cursor.execute(sql.SQL("SELECT {}").format(sql.SQL(", ").join(looks)))
        written = [
            f'"{table}"' for table, is_written in zip(tables, cursor.fetchone(), strict=True) if is_written
        ]
        if written:
            cursor.execute(f"TRUNCATE {', '.join(written)} CASCADE")
    head = AuditHead(count=0, last_id=0, hash=audit.GENESIS)
    facts = {"count": 0, "last_id": 0, "hash": audit.GENESIS, "signature": audit.signature_of(head)}
    AuditHead.objects.get_or_create(defaults=facts)


@pytest.fixture
def acme(db: None) -> Partner:
    return Partner.objects.create(name="Acme Title")


@pytest.fixture
def api(acme: Partner) -> Api:
    """A live key of Acme's, with every scope."""
    return Api.of(acme)


@pytest.fixture
def stranger(db: None) -> Api:
    """A live key of another partner."""
    return Api.of(Partner.objects.create(name="Pacific Escrow"))


@pytest.fixture
def order() -> Callable[..., dict[str, Any]]:
    """Makes an order of a type, the catalog's example with members replaced."""

    def make(kind: str = "grant", /, **members: Any) -> dict[str, Any]:
        return copy.deepcopy(DEED_TYPES[kind].example) | members

    return make


@dataclass
class MainApi:
    """A Main API on a port of its own, and what reached it."""

    url: str
    answer: Callable[..., Any]
    calls: list[dict[str, Any]] = field(default_factory=list)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def main_api(settings: Any) -> Iterator[MainApi]:
    """The sandbox as the Main API of both modes. `main_api.answer` may be replaced by another app."""
    sandbox = SandboxApp("main-api-token", timeout_seconds=5)
    state = MainApi("", sandbox)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        state.calls.append(environ)
        return state.answer(environ, start_response)

    with make_server("127.0.0.1", 0, app, _Server, _Quiet) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        settings.MAIN_API_BASE_URL = settings.SANDBOX_BASE_URL = state.url
        settings.MAIN_API_INTERNAL_TOKEN = settings.SANDBOX_TOKEN = "main-api-token"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def deed_files(settings: Any, tmp_path: Any) -> Any:
    """PDFs in a folder of the test's own."""
    use_store(settings, "local.LocalStore", location=str(tmp_path / "deeds"))
    return tmp_path / "deeds"


def use_store(settings: Any, backend: str, **options: Any) -> None:
    """Lets the product keep its PDFs elsewhere, from now to the end of the test."""
    settings.STORAGES = {
        **settings.STORAGES,
        "deeds": {"BACKEND": f"deeds.stores.{backend}", "OPTIONS": options},
    }


@pytest.fixture(autouse=True)
def no_messages_left() -> Iterator[None]:
    """What a test leaves in Redis is not seen by the next."""
    yield
    get_redis_connection("default").flushdb()


@pytest.fixture
def nothing_is_due(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process looks up every few seconds is not due again, however slow the machine: for tests that
    count queries. The first request of a test looks it up."""
    settings.REQUEST_QUOTA_SECONDS = 600.0
    monkeypatch.setattr(backlog, "COUNT_EVERY_SECONDS", 600.0)


@pytest.fixture
def client() -> Client:
    return Client(raise_request_exception=False)


@pytest.fixture
def quick_passwords(settings: Any) -> None:
    """A hash that costs nothing, for tests that log in."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def staff(db: None, quick_passwords: None) -> Client:
    """The admin as an owner sees it, logged in with password and code."""
    return log_in(hire("root", "owner"))
