"""The demo's member of staff and token really get in, at each start anew."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from keys.models import Authenticator
from tests.staff import code_at, post_login

pytestmark = pytest.mark.usefixtures("quick_passwords")


@pytest.fixture(autouse=True)
def shared_secret(settings: Any) -> None:
    settings.ADMIN_JWT_SECRET = "a shared secret of more than thirty-two bytes"


def seed(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    call_command("seed_demo", state=folder / "seed.json")
    seeded: dict[str, Any] = json.loads(capsys.readouterr().out)
    return seeded


def gets_in(seeded: dict[str, Any]) -> bool:
    admin, client = seeded["admin"], Client()
    token = code_at(admin["totp_secret"], int(time.time()) // 30)
    answer = post_login(client, admin["username"], token, admin["password"])
    return bool(answer.status_code == 302 and client.get("/admin/keys/partner/").status_code == 200)


def test_the_demos_staff_and_token_get_in(
    db: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seeded = seed(tmp_path, capsys)
    assert gets_in(seeded)
    headers = {"Authorization": f"Bearer {seeded['admin_api_token']}"}
    assert Client().get("/admin-api/v1/partners", headers=headers).status_code == 200
    made = Client().post(
        "/admin-api/v1/partners", {"name": "New"}, content_type="application/json", headers=headers
    )
    assert made.status_code == 201


def test_a_second_start_keeps_the_secret(
    db: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = seed(tmp_path, capsys)
    second = seed(tmp_path, capsys)
    assert second["admin"] == first["admin"]
    assert gets_in(second)
    Authenticator.objects.all().delete()
    third = seed(tmp_path, capsys)
    assert third["admin"] == first["admin"]
    assert gets_in(third)


def test_it_is_refused_in_production(db: None, tmp_path: Path, settings: Any) -> None:
    settings.IS_PRODUCTION = True
    with pytest.raises(CommandError, match="refused in production"):
        call_command("seed_demo", state=tmp_path / "seed.json")
    assert not Authenticator.objects.exists()
