"""The documents say what the code says."""

import ast
import re
from pathlib import Path

from django.test import Client

from deeds.answers import Failure
from partner_api.http.codes import CODES
from partner_api.http.schema import ProblemError

ROOT = Path(__file__).parent.parent
CHECKS = ("fields.py", "reading.py", "v1.py", "queries.py")


def test_every_setting_is_documented_and_every_documented_one_exists() -> None:
    code = "".join((ROOT / "partner_api" / name).read_text() for name in ("settings.py", "gunicorn_conf.py"))
    read = set(re.findall(r"env\.\w+\(\s*[\"'](\w+)", code)) | set(
        re.findall(r'environ\.get\(\s*"(\w+)"', code)
    )
    table = (ROOT / "docs" / "configuration.md").read_text().partition("| setting |")[2]
    first_cells = "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("|"))
    documented = set(re.findall(r"`([A-Z0-9_]+)`", first_cells))
    assert documented == read


def test_the_example_environment_names_real_settings() -> None:
    given = set(re.findall(r"^(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert given <= set(re.findall(r"`([A-Z0-9_]+)`", (ROOT / "docs" / "configuration.md").read_text()))


def test_every_error_code_is_documented() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (\d+) \| (.*) \|$", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE
    )
    assert {name: (int(status), advice) for name, status, advice in rows} == {
        name: (code.status, code.advice) for name, code in CODES.items()
    }


def test_the_api_tells_every_code_of_a_failure_and_of_a_field() -> None:
    """Who has its own documentation alone, or a client made from it."""
    page = (ROOT / "docs" / "errors.md").read_text()
    fields, _, failures = page.partition("Codes within `errors`:")[2].partition("## Why a deed fails")
    codes = set(re.findall(r"`(\w+)`", fields)) - {"errors"}
    failed = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", failures, re.MULTILINE))))
    assert {"required", "invalid_value"} <= codes
    assert {"invalid_pdf", "main_api_busy"} <= failed
    for model, told in ((ProblemError, codes), (Failure, failed)):
        description = model.model_fields["code"].description or ""
        assert {one for one in told if f"`{one}`" not in description} == set()


def test_a_problems_type_leads_to_its_explanation(client: Client) -> None:
    link = client.get("/nothing").json()["type"]
    page = client.get(link.removeprefix("http://testserver").partition("#")[0])
    assert page.status_code == 200
    text = page.content.decode()
    assert f'id="{link.partition("#")[2]}"' in text
    assert "<code>Retry-After</code>" in text
    assert "`" not in text


def test_every_code_of_an_error_in_a_field_is_documented() -> None:
    text = (ROOT / "docs" / "errors.md").read_text()
    sources = "".join((ROOT / "deeds" / name).read_text() for name in CHECKS)
    sources += (ROOT / "webhooks" / "reading.py").read_text()
    used = set(re.findall(r'PydanticCustomError\(\s*"(\w+)"', sources))
    used |= set(re.findall(r'FieldError\([^"]*(?:"[^"]*")?, "(\w+)"', sources))
    assert used
    assert {code for code in used if f"`{code}`" not in text} == set()


def test_every_act_of_the_audit_trail_is_documented() -> None:
    """Those that are written out; of a few the verb is put in when they are recorded."""
    used = set()
    for path in (
        path for app in ("keys", "billing", "deeds", "webhooks") for path in ROOT.glob(f"{app}/**/*.py")
    ):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] in {
                "record",
                "_record",
            }:
                texts = (
                    one.value
                    for argument in call.args
                    for one in ast.walk(argument)
                    if isinstance(one, ast.Constant) and isinstance(one.value, str)
                )
                used |= {text for text in texts if re.fullmatch(r"[a-z_]+\.[a-z_]+", text)}
    page = (ROOT / "docs" / "audit.md").read_text()
    assert {"key.rotated", "deed.held", "ledger.priced"} <= used
    assert {act for act in used if f"`{act}`" not in page} == set()


def test_every_link_in_the_documents_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_kubectl_of_the_documents_names_the_namespace() -> None:
    """What is typed at night must not look into an empty one."""
    for page in (ROOT / "docs").glob("*.md"):
        for command in re.findall(r"kubectl ([^`\n]+)", page.read_text()):
            if not command.startswith(("apply -k", "kustomize", "…")) and command[0] != "`":
                assert "-n partner-api" in command, f"{page.name}: kubectl {command}"


def test_every_requirement_is_pinned_and_says_why() -> None:
    for path in ROOT.glob("requirements*.txt"):
        for line in path.read_text().splitlines():
            assert line.startswith(("#", "-r ")) or re.fullmatch(r"[\w.-]+(\[[\w,]+\])?==\S+  # .+", line), (
                line
            )


def test_every_command_is_documented() -> None:
    """Where it says what it is for: `manage.py` and its name."""
    commands = {path.stem for path in ROOT.glob("*/management/commands/[a-z]*.py")}
    commands |= {path.stem for path in ROOT.glob("partner_api/*/management/commands/[a-z]*.py")}
    pages = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    assert {"seed_demo", "report_leak", "check_worker"} <= commands
    assert commands - set(re.findall(r"manage\.py (\w+)", pages)) == set()


def test_make_docs_writes_what_a_test_compares() -> None:
    text = (ROOT / "Makefile").read_text()
    written = set(re.findall(r"--file docs/(\S+)", text))
    assert written == {"openapi.yaml", "events.md"}
    for name in written:
        assert (ROOT / "docs" / name).exists()


def test_the_chaos_page_says_how_large_the_run_of_the_tests_is() -> None:
    said = re.search(
        r"A run of (\d+) orders and (\d+) kills is part of the tests",
        (ROOT / "docs" / "chaos.md").read_text(),
    )
    run = re.search(r"orders=(\d+), kills=(\d+)", (ROOT / "tests" / "e2e" / "test_chaos.py").read_text())
    assert said is not None
    assert run is not None
    assert said.groups() == run.groups()


def test_every_make_target_has_help() -> None:
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    targets = set(re.findall(r"^([a-z]+):", text, re.MULTILINE))
    assert targets == set(re.findall(r"^([a-z]+):.*## ", text, re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None
    assert targets == set(phony[1].split())
