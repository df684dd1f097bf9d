"""The security page names tests that exist; new migrations leave the running version at work."""

import re
from pathlib import Path
from typing import Any

import pytest
from django_migration_linter import MigrationLinter
from django_migration_linter.sql_analyser.analyser import analyse_sql_statements
from django_migration_linter.sql_analyser.postgresql import PostgresqlAnalyser

from deeds import tasks
from tests.api import Api

ROOT = Path(__file__).parent.parent.parent
APPS = ["keys", "billing", "deeds", "webhooks", "ops", "http"]
# Made before the first release: they have only ever run on empty tables.
BASELINE = ROOT / ".ci" / "migrations-of-the-first-release.txt"


def test_every_test_of_the_security_page_exists() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    there = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        there |= set(re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE))
    rows = re.findall(r"^\| API(\d+) .*\| (.+) \|$", page, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 11))
    for _, tests in rows:
        named = re.findall(r"`(test_\w+)`", tests)
        assert named
        assert set(named) <= there, set(named) - there


def test_a_redirect_of_the_main_api_is_not_followed(main_api: Any, api: Api, order: Any) -> None:
    """The token of ours would go along to wherever it leads."""
    reached = []

    def elsewhere(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        reached.append((environ["PATH_INFO"], environ.get("HTTP_AUTHORIZATION")))
        start_response("302 Found", [("Location", f"{main_api.url}/elsewhere")])
        return [b""]

    main_api.answer = elsewhere
    api.post("/v2/deeds", order())
    tasks.serve(str(api.partner.deeds.get().pk))
    assert [path for path, _ in reached] == ["/api/generate/grant-deed-ca"]
    assert api.partner.deeds.get().status == "queued"


def test_every_command_of_the_runbook_exists() -> None:
    text = "".join((ROOT / "docs" / name).read_text() for name in ("runbook.md", "security.md", "metrics.md"))
    targets = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)", text)) <= targets
    commands = {path.stem for path in ROOT.glob("*/management/commands/*.py")}
    commands |= {path.stem for path in ROOT.glob("partner_api/*/management/commands/*.py")}
    assert set(re.findall(r"manage\.py (\w+)", text)) <= commands


def test_new_migrations_leave_the_running_version_at_work(transactional_db: None, capsys: Any) -> None:
    # Not within a transaction: an index that is made without a lock can't be made in one, nor be linted.
    old = BASELINE.read_text().split()
    linter = MigrationLinter(path=str(ROOT), include_apps=APPS, no_cache=True)
    wrong = []
    for migration in linter._gather_all_migrations():
        name = f"{migration.app_label}.{migration.name}"
        if migration.app_label in APPS and name not in old:
            linter.lint_migration(migration)
            if linter.has_errors:
                wrong.append(name)
    assert wrong == [], capsys.readouterr().out


def test_the_baseline_names_migrations_that_exist() -> None:
    from django.db.migrations.loader import MigrationLoader

    there = {
        f"{app}.{name}" for app, name in MigrationLoader(None, ignore_no_migrations=True).disk_migrations
    }
    assert set(BASELINE.read_text().split()) <= there


@pytest.mark.parametrize(
    "statement",
    [
        'ALTER TABLE "keys_partner" ADD COLUMN "x" integer NOT NULL',
        'ALTER TABLE "keys_partner" RENAME COLUMN "name" TO "title"',
        'ALTER TABLE "keys_partner" DROP COLUMN "name"',
    ],
)
def test_the_lint_can_fail(statement: str) -> None:
    errors, _, _ = analyse_sql_statements(PostgresqlAnalyser, [statement], [])
    assert errors
