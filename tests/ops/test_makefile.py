"""What `make` does with backups: they are not lost by accident, and a slip is told in one line."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.ops.deployed import ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Makefile", tmp_path)
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As if all were installed."""
    command = ["make", "-s", "-o", ".venv/local-stamp", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_clean_leaves_the_backups(folder: Path) -> None:
    planned = re.search(r'backup backup "(\S+)"', make(folder, "-n", "backup").stdout)
    assert planned is not None
    dump = folder / planned[1] / "database.dump"
    dump.parent.mkdir(parents=True)
    dump.write_text("rows")
    (folder / "var" / "storage").mkdir(parents=True)
    assert make(folder, "clean").returncode == 0
    assert dump.exists()
    assert not (folder / "var").exists()
    ignored = (ROOT / ".gitignore").read_text().split()
    assert f"{planned[1].partition('/')[0]}/" in ignored


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say which backup: make restore BACKUP=folder"),
        (["BACKUP=nowhere"], "there is no backup in nowhere"),
    ],
)
def test_a_restore_says_what_is_missing(folder: Path, arguments: list[str], said: str) -> None:
    done = make(folder, "restore", *arguments)
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == said


def test_the_backup_that_is_named_is_the_one(folder: Path) -> None:
    assert 'backup backup "/safe/today"' in make(folder, "-n", "backup", "BACKUP=/safe/today").stdout
