"""What somebody who installs the product for the first time is told leads to a start."""

import os
import re
import subprocess
import sys

from tests.ops.deployed import ROOT

EXAMPLE = (ROOT / ".env.example").read_text()
DEPLOYING = (ROOT / "docs" / "deploy.md").read_text()


def _filled_in() -> dict[str, str]:
    """The example as it stands; what is empty by the command in the line above it, or else by any text."""
    settings: dict[str, str] = {}
    command = None
    for line in EXAMPLE.splitlines():
        if line.startswith("# python3 -c"):
            command = line.removeprefix("# ")
        elif name := re.match(r"(\w+)=(.*)", line):
            made = command and subprocess.run(command, shell=True, capture_output=True, text=True, check=True)  # noqa: S602 - the example's own
            settings[name[1]] = name[2] or (made.stdout.strip() if made else "filled-in-with-some-text")
            command = None
    return settings


def test_the_example_filled_in_as_it_says_starts_in_production() -> None:
    settings = _filled_in()
    assert len(settings["SECRET_KEY"]) > 50
    argv = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    env = {"PATH": os.environ["PATH"], **settings}
    done = subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_the_example_uses_the_role_that_is_made_for_the_app() -> None:
    role = re.search(r"^DATABASE_URL=postgres://(\w+):", EXAMPLE, re.MULTILINE)
    assert role is not None
    assert f"'{role[1]}'" in (ROOT / "deploy" / "postgres" / "roles.sql").read_text()


def test_all_that_compose_asks_for_is_named_before_it_asks() -> None:
    asked = set(re.findall(r"\$\{(\w+):\?", (ROOT / "deploy" / "compose.yml").read_text()))
    section = DEPLOYING.partition("## The first day")[2].partition("\n## ")[0]
    assert "SANDBOX_TOKEN" in asked
    assert asked - set(re.findall(r"`(\w+)`", section)) == set()
