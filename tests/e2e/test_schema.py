"""The API against its own OpenAPI document, as a fuzzer sees it: no 5xx, nothing undocumented."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command

from keys.models import Partner
from tests.api import Api
from tests.e2e.conftest import Deployment

ROOT = Path(__file__).parent.parent.parent
# Breaking each constraint of the document in turn takes more than a minute, and is `make fuzz`:
# it is for those who change what a body or a query may be.
IS_THOROUGH = os.environ.get("FUZZ") == "thorough"
PHASES = {
    "live": "examples,coverage,fuzzing,stateful" if IS_THOROUGH else "examples,fuzzing,stateful",
    "test": "examples,fuzzing,stateful",
}
EXAMPLES = {"live": "4", "test": "25" if IS_THOROUGH else "8"}


def test_the_document_in_docs_is_the_current_one(tmp_path: Path) -> None:
    made = tmp_path / "openapi.yaml"
    call_command("spectacular", validate=True, fail_on_warn=True, file=str(made))
    kept = (ROOT / "docs" / "openapi.yaml").read_text()
    assert made.read_text().replace("http://testserver", "http://127.0.0.1:8000") == kept, "run `make docs`"


@pytest.mark.parametrize("environment", ["live", "test"])
def test_a_fuzzer_finds_nothing(deployment: Deployment, acme: Partner, environment: str) -> None:
    # Its requests without a key are many, too.
    many = {"FAILED_AUTH_BURST": "100000", "PUBLIC_RATE_LIMIT_BURST": "100000"}
    deployment.start_web(V1_WAIT_SECONDS="0", WAITING_REQUESTS_PER_PROCESS="1", **many)
    api = Api.of(acme, environment=environment)
    configuration = str(ROOT / "tests" / "e2e" / "schemathesis.toml")
    tool = [sys.executable, "-m", "schemathesis.cli", "--config-file", configuration, "run"]
    options = {
        "--checks": "all",
        "--phases": PHASES[environment],
        "--max-examples": EXAMPLES[environment],
        "--header": f"Authorization: Bearer {api.text}",
    }
    if environment == "test":
        # The same code in another mode: those operations that the mode decides about.
        options["--include-path-regex"] = "^/v2/deeds"
    done = subprocess.run(
        [*tool, f"{deployment.url}/schema/", *(part for pair in options.items() for part in pair)],
        capture_output=True,
        text=True,
        check=False,
        cwd=deployment.folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    selected = 39 if environment == "live" else 7
    assert f"Operations:       {selected} selected / 39 total" in done.stdout
