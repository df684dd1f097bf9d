"""Migrations one at a time, roles that can do their work and no more, backups that come back whole."""

import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from deeds import tasks
from deeds.models import Deed
from deeds.models.own_deed import own_deed
from keys.models import Partner
from partner_api import backup
from partner_api.ops.health import own_connection
from tests.api import Api
from tests.billing.books import agree

ROOT = Path(__file__).parent.parent.parent
ROLES = ("app", "migration", "readonly")


@contextmanager
def beside() -> Iterator[str]:
    """The URL of an empty database beside the tests' own."""
    server = os.environ["DATABASE_URL"].rpartition("/")[0]
    name = f"beside_{secrets.token_hex(4)}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    yield f"{server}/{name}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database() -> Iterator[str]:
    with beside() as url:
        yield url


def manage(*arguments: str, url: str, **settings: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "manage.py", *arguments],
        env={**os.environ, "DATABASE_URL": url, **settings},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@dataclass(frozen=True)
class Migrated:
    """A database whose tables the migrations' role made, by two commands at once."""

    url_of: Callable[[str], str]
    said: list[tuple[int, str, str]]


@pytest.fixture(scope="module")
def migrated() -> Iterator[Migrated]:
    with beside() as url:
        url_of = roles(url)
        both = [manage("migrate_safely", url=url_of("migration")) for _ in range(2)]
        said = [(*one.communicate(timeout=120), one) for one in both]
        yield Migrated(url_of, [(one.returncode, out, error) for out, error, one in said])


def test_two_migrations_at_once_are_one(migrated: Migrated) -> None:
    assert [code for code, _, _ in migrated.said] == [0, 0], migrated.said
    assert sorted("No migrations to apply" in out for _, out, _ in migrated.said) == [False, True]
    with psycopg.connect(migrated.url_of("migration")) as connection:
        rows = connection.execute(
            "SELECT count(*), count(DISTINCT (app, name)) FROM django_migrations"
        ).fetchone()
    assert rows is not None
    assert rows[0] == rows[1] > 20


def test_the_apps_role_sees_whether_a_migration_is_missing(migrated: Migrated, database: str) -> None:
    """What pods of a new version wait for, on a new database and on one that has all."""
    codes = []
    for url in (roles(database)("app"), migrated.url_of("app")):
        check = manage("migrate", "--check", "-v", "0", url=url)
        _, error = check.communicate(timeout=60)
        codes.append(check.returncode)
        assert "Traceback" not in error
    assert codes == [1, 0]


def test_a_migration_that_waits_too_long_says_so(db: None) -> None:
    from django.core.management import CommandError, call_command

    from partner_api.ops.management.commands.migrate_safely import _LOCK

    with own_connection(autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
        with pytest.raises(CommandError, match="another migration has been running for 1 s"):
            call_command("migrate_safely", wait_seconds=1, verbosity=0)


def roles(url: str) -> Callable[[str], str]:
    """Runs roles.sql as psql does, and gives the URL of each role.

    Roles belong to the server, which other test processes use as well: the same passwords, by turns.
    """
    passwords = {name: f"of-{name}" for name in ROLES}
    psql = str(Path(backup._program("pg_dump", 16)).with_name("psql"))
    variables = [part for name in ROLES for part in ("-v", f"{name}_password={passwords[name]}")]
    with psycopg.connect(f"{url.rpartition('/')[0]}/postgres", autocommit=True) as turn:
        turn.execute("SELECT pg_advisory_lock(1)")
        for _ in range(2):  # twice: a second run must do no harm
            subprocess.run(
                [psql, url, "-q", *variables, "-f", str(ROOT / "deploy" / "postgres" / "roles.sql")],
                check=True,
                capture_output=True,
                text=True,
            )
    place = url.partition("@")[2]
    return lambda name: f"postgres://partner_api_{name}:{passwords[name]}@{place}"


def refused(url: str, statement: str) -> None:
    with (
        psycopg.connect(url) as connection,
        pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)),
    ):
        connection.execute(statement)


def test_each_role_can_do_its_work_and_no_more(migrated: Migrated) -> None:
    url_of = migrated.url_of
    insert = (
        "INSERT INTO keys_partner (id, name, contact_email, status, created_at)"
        " VALUES (gen_random_uuid(), 'X', '', 'active', now())"
    )
    with psycopg.connect(url_of("migration")) as connection:
        columns = connection.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'keys_partner'"
        ).fetchall()
    assert ("name",) in columns
    insert = _insert_for(url_of("migration"), insert)
    with psycopg.connect(url_of("app")) as connection:
        connection.execute(insert)
        connection.execute("UPDATE keys_partner SET status = 'suspended'")
        assert connection.execute("SELECT count(*) FROM keys_partner").fetchone() == (1,)
    with psycopg.connect(url_of("readonly")) as connection:
        assert connection.execute("SELECT count(*) FROM keys_partner").fetchone() == (1,)
    for name in ("app", "readonly"):
        for statement in (
            "CREATE TABLE mine (id int)",
            "DROP TABLE keys_partner",
            "ALTER TABLE audit_entries DISABLE TRIGGER ALL",
            "TRUNCATE audit_entries",
        ):
            refused(url_of(name), statement)
    refused(url_of("readonly"), "UPDATE keys_partner SET status = 'active'")
    refused(url_of("readonly"), "SET default_transaction_read_only = off; DELETE FROM keys_partner")


def test_a_second_login_stands_in_while_the_apps_password_changes(migrated: Migrated) -> None:
    """As the runbook has it: it may do what the app may and no more, and ends with its password."""
    login, (first, second) = f"app_{secrets.token_hex(4)}", (secrets.token_hex(8) for _ in range(2))
    place = migrated.url_of("app").partition("@")[2]
    url = f"postgres://{login}:{first}@{place}"
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {login} LOGIN PASSWORD '{first}' IN ROLE partner_api_app")
        try:
            for statement in ("CREATE TABLE mine (id int)", "ALTER TABLE audit_entries DISABLE TRIGGER ALL"):
                refused(url, statement)
            with psycopg.connect(url, autocommit=True) as open_already:
                open_already.execute("UPDATE keys_partner SET status = 'active'")
                admin.execute(f"ALTER ROLE {login} PASSWORD '{second}'")
                with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                    psycopg.connect(url)
                open_already.execute("SELECT count(*) FROM keys_partner")
            psycopg.connect(url.replace(first, second)).close()
        finally:
            admin.execute(f"DROP ROLE {login}")


# Half a year from now, when the first months are past their retention and none of the next ones was made.
KEEP = """
import datetime as dt
from django.utils import timezone
from billing import metrics, retention
retention.keep(timezone.now() + dt.timedelta(days=183))
print(metrics.usage_rows_without_partition._value.get())
"""
ROW = """
INSERT INTO api_usage (at, id, method, route, status, error_code, latency_ms, cost_units, deeds, deed_type,
  bytes_in, bytes_out, request_id)
VALUES (now() + interval '183 days', gen_random_uuid(), 'GET', '/v2/deeds', 200, '', 1, 1, 0, '', 0, 0, '')
"""
MONTHS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'api_usage'::regclass"


def test_the_app_makes_and_drops_the_months_of_the_request_log(migrated: Migrated) -> None:
    url = migrated.url_of("app")
    with psycopg.connect(url) as connection:
        connection.execute(ROW)
        before = {name for (name,) in connection.execute(MONTHS)}
    said = manage("shell", "-c", KEEP, url=url, USAGE_RETENTION_MONTHS="1").communicate(timeout=60)
    with psycopg.connect(url) as connection:
        after = {name for (name,) in connection.execute(MONTHS)}
        left = connection.execute("SELECT count(*) FROM ONLY api_usage_default").fetchone()
        kept = connection.execute("SELECT count(*) FROM api_usage").fetchone()
    assert said[0].splitlines()[-1:] == ["0.0"], said
    assert (left, kept) == ((0,), (1,))
    # Last month, this one and three more; of the first four no one is left.
    assert len(after) == 1 + 5
    assert before & after == {"api_usage_default"}
    for call in (
        "SELECT make_usage_month('2031-05-02')",
        "SELECT make_usage_month('1999-05-01')",
        "SELECT make_usage_month(NULL)",
    ):
        with psycopg.connect(url) as connection, pytest.raises(psycopg.Error):
            connection.execute(call)
    for call in ("SELECT make_usage_month('2031-05-01')", "SELECT drop_usage_month('2026-01-01')"):
        refused(migrated.url_of("readonly"), f"SET default_transaction_read_only = off; {call}")


def test_a_month_that_cant_be_made_is_told(migrated: Migrated) -> None:
    with psycopg.connect(migrated.url_of("migration")) as connection:
        connection.execute("REVOKE EXECUTE ON FUNCTION make_usage_month FROM partner_api_app")
    with psycopg.connect(migrated.url_of("app")) as connection:
        connection.execute("DELETE FROM api_usage")
        connection.execute(ROW.replace("183 days", "366 days"))
    keep = KEEP.replace("183", "366").replace("retention.keep", "with suppress(Exception): retention.keep")
    process = manage("shell", "-c", f"from contextlib import suppress{keep}", url=migrated.url_of("app"))
    said = process.communicate(timeout=60)
    assert said[0].splitlines()[-1:] == ["1.0"], said


def _insert_for(url: str, insert: str) -> str:
    """The insert, with a value for each further column that must have one."""
    with psycopg.connect(url) as connection:
        more = connection.execute(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'keys_partner'"
            " AND is_nullable = 'NO' AND column_default IS NULL"
            " AND column_name NOT IN ('id', 'name', 'contact_email', 'status', 'created_at')"
        ).fetchall()
    empty = {"boolean": "false", "integer": "0", "numeric": "0", "smallint": "0", "bigint": "0"}
    names = "".join(f", {name}" for name, _ in more)
    values = "".join(f", {empty.get(kind, repr(''))}" for _, kind in more)
    return insert.replace("created_at)", f"created_at{names})").replace("now())", f"now(){values})")


def test_a_backup_under_load_comes_back_whole(
    transactional_db: None, database: str, acme: Partner, order: Any, main_api: Any, tmp_path: Path
) -> None:
    agree(acme, starts_on=timezone.now().date().replace(day=1))
    api = Api.of(acme)

    def make(number: int) -> None:
        """A live deed, from the order to its charge."""
        api.post("/v2/deeds", order() | {"order_id": f"B-{number}"})
        tasks.serve(str(acme.deeds.get(order_id=f"B-{number}").pk))

    for number in range(5):
        make(number)
    stop = threading.Event()
    written: list[int] = []

    def keep_making() -> None:
        from django.db import connection

        while not stop.is_set():
            make(100 + len(written))
            written.append(1)
        connection.close()

    load = threading.Thread(target=keep_making)
    load.start()
    try:
        facts = backup.backup(tmp_path / "backup")
    finally:
        stop.set()
        load.join()
    assert written
    assert 5 <= facts["deeds"] <= facts["tables"]["external_deeds"] <= 5 + len(written)
    restored = _restore(tmp_path / "backup", database)
    assert restored.returncode == 0, restored.stderr
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM external_deeds").fetchone() == (
            facts["tables"]["external_deeds"],
        )
        # Each deed that was completed at that moment has its charge, and no other has one.
        assert connection.execute(
            "SELECT count(*), sum(amount), bool_and(is_priced) FROM ledger_entries"
        ).fetchone() == (facts["deeds"], 1250 * facts["deeds"], True)
        # The rules came along: the audit trail is append-only here as well.
        triggers = connection.execute("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal").fetchone()
        assert triggers is not None
        assert triggers[0] > 0
    assert backup.missing_pdfs(tmp_path / "backup") == []
    reconciling = manage("reconcile", "--json", url=database)
    said, error = reconciling.communicate(timeout=60)
    assert reconciling.returncode == 0, said + error
    assert (json.loads(said)["total"], json.loads(said)["error"]) == (0, None)


def test_a_dump_may_take_longer_than_a_transaction_may_be_idle(
    transactional_db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        connection.settings_dict["OPTIONS"], "options", "-c idle_in_transaction_session_timeout=10"
    )
    backup.backup(tmp_path / "backup")
    assert (tmp_path / "backup" / "manifest.json").exists()


def test_a_dump_is_made_over_the_connection_that_the_settings_ask_for(
    db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\necho "$@" >&2\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setattr(backup, "_program", lambda *arguments, **_: str(program))
    for name, text in (("sslmode", "verify-full"), ("sslrootcert", "/etc/ca.pem")):
        monkeypatch.setitem(connection.settings_dict["OPTIONS"], name, text)
    with pytest.raises(backup.NotDone) as told:
        backup._run("pg_dump", ["--schema-only"], server=16)
    for part in (
        "sslmode=verify-full",
        "sslrootcert=/etc/ca.pem",
        f"dbname={connection.settings_dict['NAME']}",
    ):
        assert part in str(told.value)
    assert connection.settings_dict["PASSWORD"] not in str(told.value)


def test_a_program_without_ssl_is_not_used_where_the_database_asks_for_it(tmp_path: Path) -> None:
    wheels = {path for path in backup._places("pg_dump", needs_ssl=False) if "pginstall" in path.parts}
    assert wheels
    assert wheels.isdisjoint(backup._places("pg_dump", needs_ssl=True))


@pytest.mark.parametrize(("server", "chosen"), [(14, "14"), (15, "16"), (16, "16"), (17, "17"), (18, None)])
def test_the_program_is_as_new_as_the_server_and_no_newer_than_it_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: int, chosen: str | None
) -> None:
    for version in ("14", "16", "17"):
        program = tmp_path / version
        program.write_text(f"#!/bin/sh\necho 'pg_dump (PostgreSQL) {version}.4 (Debian)'\n")
        program.chmod(0o755)
    places = [tmp_path / name for name in ("17", "absent", "14", "16")]
    monkeypatch.setattr(backup, "_places", lambda name, **_: places)
    if chosen is None:
        with pytest.raises(backup.NotDone, match=r"Postgres 18, .*17 \(17\)"):
            backup._program("pg_dump", server)
    else:
        assert backup._program("pg_dump", server) == str(tmp_path / chosen)


def test_what_is_missing_is_named(
    transactional_db: None,
    database: str,
    acme: Partner,
    order: Any,
    main_api: Any,
    tmp_path: Path,
    deed_files: Path,
) -> None:
    api = Api.of(acme)
    for number in range(2):
        api.post("/v2/deeds", order() | {"order_id": f"B-{number}"})
    deeds = list(acme.deeds.all())
    for deed in deeds:
        tasks.serve(str(deed.pk))
    backup.backup(tmp_path / "backup")
    first, second = (next(deed_files.rglob(f"{deed.pk}.pdf")) for deed in deeds)
    first.unlink()
    second.write_bytes(b"another")
    faults = backup.missing_pdfs(tmp_path / "backup")
    assert sorted(fault.rpartition(" is ")[2] for fault in faults) == ["another file", "missing"]
    with pytest.raises(backup.NotDone, match="never written over"):
        backup.backup(tmp_path / "backup")
    with pytest.raises(backup.NotDone, match="restore into an empty one"):
        backup.restore(tmp_path / "backup")
    manifest = tmp_path / "backup" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"external_deeds": 2', '"external_deeds": 3'))
    restored = _restore(tmp_path / "backup", database)
    assert restored.returncode == 1
    assert "external_deeds: 2 rows, and 3 in the backup" in restored.stderr


def _restore(folder: Path, url: str) -> Any:
    return subprocess.run(
        [sys.executable, "-m", "partner_api.backup", "restore", str(folder)],
        env={**os.environ, "DATABASE_URL": url},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_reads_go_on_when_a_migration_widens_a_column(transactional_db: None, api: Api, order: Any) -> None:
    """Postgres has no result of another form for a statement that it prepared before."""
    deed = api.post("/v2/deeds", order()).json()["id"]
    assert api.get(f"/v2/deeds/{deed}").status_code == 200
    with changed_meanwhile():
        answers = [api.get(f"/v2/deeds/{deed}") for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]
    assert api.get(f"/v2/deeds/{deed}").status_code == 200


def test_a_transaction_that_meets_a_changed_table_may_be_tried_again(
    transactional_db: None, api: Api, order: Any
) -> None:
    deed = Deed.objects.get(pk=api.post("/v2/deeds", order()).json()["id"])

    def read() -> Deed | None:
        with transaction.atomic():
            return own_deed(deed.partner_id, livemode=True, deed_id=deed.pk)

    assert read() == deed
    with changed_meanwhile():
        with pytest.raises(OperationalError, match="changed under this transaction"):
            read()
        assert read() == deed
    connection.close()


@contextmanager
def changed_meanwhile() -> Iterator[None]:
    """What a migration does beside the running processes."""
    change = "ALTER TABLE external_deeds ALTER COLUMN hold_reason TYPE varchar({})"
    length = Deed._meta.get_field("hold_reason").max_length
    with own_connection(autocommit=True) as other:
        other.execute(change.format(600))
        try:
            yield
        finally:
            other.execute(change.format(length))
            # No connection of the pool may take the plans of now to another test.
            connection.close_pool()  # type: ignore[attr-defined]  # of Django's backend for Postgres
