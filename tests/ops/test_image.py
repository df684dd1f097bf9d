"""The image: what it holds, who it runs as, and that its commands work with no more than that."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class
from docker.utils.build import exclude_paths  # type: ignore[import-untyped]

from tests.ops.deployed import DOCKERFILE, ROOT

# Where secrets and what is no product's part lie on the machine that builds.
PLANTED = (
    ".env",
    "deploy/.env",
    "deploy/.env.production",
    "keys/.env",
    "backups/20261124/database.dump",
    "var/backups/20261124/database.dump",
    ".git/config",
    "keys/__pycache__/models.pyc",
    "notes.txt",
)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """The repository's tree, and what must not leave the machine, each planted at its place."""
    tree = tmp_path / "tree"
    left_out = shutil.ignore_patterns(".git", ".venv", "var", "backups", "staticfiles", ".*cache*", "*.pyc")
    shutil.copytree(ROOT, tree, ignore=left_out)
    for name in PLANTED:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("SECRET_KEY=of-production\n")
    return tree


def copied(context: Path) -> set[str]:
    """The files that `COPY . .` puts into the image, by Docker's rules."""
    patterns = [
        line.strip()
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.strip() and not line.startswith("#")
    ]
    found = exclude_paths(str(context), patterns, dockerfile="Dockerfile")
    return {name for name in found if (context / name).is_file()}


def test_it_holds_the_product_and_nothing_else(context: Path) -> None:
    names = copied(context) - {"Dockerfile", ".dockerignore"}  # sent for the build, and in no layer
    assert set(PLANTED) & names == set()
    assert {name.partition("/")[0] for name in names} == {
        "manage.py",
        "requirements.txt",
        "constraints.txt",
        "partner_api",
        "keys",
        "billing",
        "deeds",
        "webhooks",
        "templates",
    }


def test_it_holds_all_that_its_processes_need(context: Path, tmp_path: Path) -> None:
    image = tmp_path / "app"
    for name in copied(context):
        (image / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(context / name, image / name)
    [values] = re.findall(
        r"^RUN (ENVIRONMENT=production (?:[^\\]|\\\n)*?)/opt", DOCKERFILE.read_text(), re.MULTILINE
    )
    env = {"PATH": os.environ["PATH"], **dict(one.split("=", 1) for one in re.findall(r"\w+=\S+", values))}
    for command in (
        ["manage.py", "collectstatic", "--noinput", "--skip-checks", "-v", "0"],
        ["-c", "import partner_api.gunicorn_conf, django; django.setup(); import partner_api.urls"],
        ["-c", "from partner_api.celery import app; app.loader.import_default_modules()"],
    ):
        done = subprocess.run(
            [sys.executable, *command], cwd=image, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert any((image / "staticfiles").rglob("pages*.css"))


def test_it_is_not_roots() -> None:
    assert re.search(r"^USER 10001", DOCKERFILE.read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "command", re.findall(r"python (manage\.py \w+|-m celery [^\n]*)", DOCKERFILE.read_text())
)
def test_its_commands_exist(command: str) -> None:
    if command.startswith("manage.py"):
        name = command.removeprefix("manage.py ")
        assert load_command_class(get_commands()[name], name)
    else:
        assert "-A partner_api" in command
