"""manage.py report_leak: a key on the street is revoked, and what was done with it is told."""

import datetime as dt
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from deeds import leaks
from keys.models import ApiKey, AuditEntry, Partner
from keys.secret import KeyText
from tests.api import Api

Orders = Callable[..., dict[str, Any]]


def _report(source: str, **options: Any) -> str:
    out = io.StringIO()
    call_command("report_leak", source, stdout=out, **options)
    return out.getvalue()


def test_it_works(api: Api, order: Orders) -> None:
    first = api.post("/v2/deeds", order(order_id="LEAK-1")).json()["id"]
    unread = api.post("/v2/deeds", order(order_id="LEAK-2")).json()["id"]
    api.get(f"/v2/deeds/{first}")
    api.get("/v2/deeds/01900000-0000-7000-8000-000000000000")
    said = _report(api.text)
    assert api.get("/v2/deeds").json()["code"] == "api_key_revoked"
    assert f"{api.key.prefix} (Test) of Acme Title is revoked now." in said
    assert "4 requests since" in said
    for line in ("2  POST /v2/deeds 202", "1  GET /v2/deeds/{deed_id} 200", "1  GET /v2/deeds/{deed_id} 404"):
        assert line in said
    assert "4  127.0.0.1" in said
    assert f"{first}  LEAK-1 (grant, queued)" in said
    assert unread not in said
    assert api.text not in said
    assert AuditEntry.objects.get().action == "key.revoked"


def test_every_key_of_a_file_is_found_wherever_it_lies(acme: Partner, tmp_path: Path) -> None:
    keys = [Api.of(acme) for _ in range(3)]
    across = "x" * (leaks._CHUNK - 20)
    path = tmp_path / "paste.txt"
    path.write_text(
        f"token={keys[0].text};\n{across}{keys[1].text}\n{'y' * 300}'{keys[2].text}' {keys[0].text}"
    )
    said = _report(str(path))
    assert said.count("is revoked now") == 3
    assert ApiKey.objects.filter(revoked_at=None).count() == 0


def test_a_key_that_is_not_ours_harms_nobody(api: Api, tmp_path: Path) -> None:
    """The right id with another secret, and a key of another system."""
    other = KeyText("live", api.key.key_id, "0" * 43).text
    path = tmp_path / "paste.txt"
    path.write_text(f"{other} {KeyText.generate('live').text} {api.text[:-1]}")
    with pytest.raises(CommandError, match="No key of ours"):
        _report(str(path))
    assert api.get("/v2/deeds").status_code == 200


def test_only_what_came_since_is_told(api: Api, time_machine: Any) -> None:
    api.get("/v2/deeds")
    later = timezone.now() + dt.timedelta(minutes=5)
    said = _report(api.text, since=later)
    assert "No request since" in said
    assert "was revoked before" in _report(api.text)


def test_a_source_that_is_not_there_is_named(db: None) -> None:
    with pytest.raises(CommandError, match="can't be read"):
        _report("/nowhere/paste.txt")
