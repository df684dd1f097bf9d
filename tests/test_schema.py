"""The API against its own OpenAPI document: as a fuzzer sees it, on a real server."""

from pathlib import Path

from django.core.management import call_command
from schemathesis.config import SchemathesisConfig  # noqa: F401 - fails here when the package changes

ROOT = Path(__file__).parent.parent


def test_the_document_in_docs_is_the_current_one(tmp_path: Path) -> None:
    made = tmp_path / "openapi.yaml"
    call_command("spectacular", validate=True, fail_on_warn=True, file=str(made))
    kept = (ROOT / "docs" / "openapi.yaml").read_text()
    assert made.read_text().replace("http://testserver", "http://127.0.0.1:8000") == kept, "run `make docs`"
