"""Secrets are rotated as the runbook says, and nothing that was made by the old one stops working."""

import base64
import itertools
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jwt
import pytest
from cryptography.fernet import Fernet, InvalidToken
from django.core.management import call_command
from django.db import connection, models
from django.test import Client
from django.test.utils import isolate_apps
from redis import Redis
from redis.exceptions import AuthenticationError

from deeds import tasks
from deeds.sandbox.app import SandboxApp
from partner_api import encryption
from partner_api.http import signed_links
from partner_api.local.engines import start_redis
from partner_api.ops.vault import EncryptedBinaryField, EncryptedTextField
from tests.api import Api


def test_a_link_outlives_the_key_that_signed_it(settings: Any) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "old" * 20, []
    expires = str(int(time.time()) + 60)
    signature = signed_links.sign("/x", expires_at=int(expires)).rpartition("signature=")[2]
    signature = signature.replace("%3A", ":")
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new" * 20, ["old" * 20]
    assert signed_links.is_valid("/x", expires, signature)
    settings.SECRET_KEY_FALLBACKS = []
    assert not signed_links.is_valid("/x", expires, signature)


def _rolled_out(steps: list[list[str]]) -> list[tuple[list[str], list[str]]]:
    """Who runs beside whom, as each step replaces the one before."""
    pairs = list(itertools.pairwise(steps))
    return pairs + [(after, before) for before, after in pairs]


RENEWALS = _rolled_out([["old"], ["old", "new"], ["new", "old"], ["new"]])


@pytest.mark.parametrize(("writes", "reads"), RENEWALS)
def test_processes_of_two_steps_read_each_others_secrets(
    settings: Any, writes: list[str], reads: list[str]
) -> None:
    keys = {name: base64.urlsafe_b64encode(name.encode().ljust(32)).decode() for name in ("old", "new")}
    settings.FIELD_ENCRYPTION_KEYS = [keys[name] for name in writes]
    token = encryption.encrypt("whispered")
    if reads == ["new"]:
        # The step before it has ended with this.
        token = encryption.rotate(token)
    settings.FIELD_ENCRYPTION_KEYS = [keys[name] for name in reads]
    assert encryption.decrypt(token) == "whispered"


@pytest.mark.parametrize(("writes", "reads"), RENEWALS)
def test_processes_of_two_steps_take_each_others_links(
    settings: Any, writes: list[str], reads: list[str]
) -> None:
    settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS = (name * 20 for name in writes)
    expires = int(time.time()) + 60
    signature = unquote(signed_links.sign("/x", expires_at=expires).rpartition("signature=")[2])
    settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS = (name * 20 for name in reads)
    assert signed_links.is_valid("/x", str(expires), signature)


def test_a_new_key_that_comes_first_at_once_can_not_be_read_by_those_before(settings: Any) -> None:
    """Why the steps are as they are."""
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    settings.FIELD_ENCRYPTION_KEYS = [new, old]
    token = encryption.encrypt("whispered")
    settings.FIELD_ENCRYPTION_KEYS = [old]
    with pytest.raises(InvalidToken):
        encryption.decrypt(token)


@isolate_apps("partner_api.ops")
def test_kept_secrets_outlive_the_key_that_encrypted_them(db: None, settings: Any, monkeypatch: Any) -> None:
    class Kept(models.Model):  # noqa: DJ008 - nobody reads it
        secret = EncryptedTextField(null=True)
        content = EncryptedBinaryField(null=True)
        objects: "models.Manager[Kept]" = models.Manager()

        class Meta:
            app_label = "ops"

    monkeypatch.setattr("django.apps.apps.get_models", lambda: [Kept])
    with connection.schema_editor() as editor:
        editor.create_model(Kept)
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    settings.FIELD_ENCRYPTION_KEYS = [old]
    content = bytes(range(256)) + b"\r\n"
    # More than a batch of the rotation; and what is empty.
    Kept.objects.bulk_create([Kept(secret=None)] * 401)
    Kept.objects.create(secret="whispered", content=content)
    empty = Kept.objects.create(secret="", content=b"")
    settings.FIELD_ENCRYPTION_KEYS = [new, old]
    kept = Kept.objects.exclude(secret=None).exclude(pk=empty.pk)
    assert (kept.get().secret, kept.get().content) == ("whispered", content)
    Kept.objects.filter(secret=None).update(content=b"many")
    for _ in range(2):
        out = StringIO()
        call_command("rotate_secrets", stdout=out)
        assert out.getvalue().splitlines()[1] == "ops_kept.content: 403 rows"
    settings.FIELD_ENCRYPTION_KEYS = [new]
    assert (kept.get().secret, kept.get().content) == ("whispered", content)
    assert set(Kept.objects.filter(secret=None).values_list("content", flat=True)) == {b"many"}
    empty.refresh_from_db()
    assert (empty.secret, empty.content) == ("", b"")
    settings.FIELD_ENCRYPTION_KEYS = [old]
    for field in ("secret", "content"):
        with pytest.raises(InvalidToken):
            kept.values_list(field).get()


def test_a_request_is_answered_as_before_after_the_key_that_encrypted_its_answer(
    api: Api, order: Any, settings: Any
) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    settings.FIELD_ENCRYPTION_KEYS = [old]
    first = api.post("/v2/deeds", order(), Idempotency_Key="k-1")
    settings.FIELD_ENCRYPTION_KEYS = [new, old]
    call_command("rotate_secrets", stdout=(out := StringIO()))
    assert "kept_answers.headers_and_body: 1 rows" in out.getvalue().splitlines()
    settings.FIELD_ENCRYPTION_KEYS = [new]
    again = api.post("/v2/deeds", order(), Idempotency_Key="k-1")
    assert (again.status_code, again.content) == (first.status_code, first.content)


def test_redis_takes_two_passwords_while_one_is_changed(tmp_path: Path) -> None:
    """As the runbook has it; and those who are connected are not cut off when the old one ends."""
    child, url = start_redis(tmp_path / "redis", password="old", log=tmp_path / "log", durable=False)
    renewed = url.replace(":old@", ":new@")
    try:
        with Redis.from_url(url) as admin, Redis.from_url(url) as before:
            before.ping()
            admin.execute_command("ACL", "SETUSER", "default", ">new")
            for either in (url, renewed):
                with Redis.from_url(either) as client:
                    assert client.ping()
            admin.execute_command("ACL", "SETUSER", "default", "<old")
            assert before.ping()
        with Redis.from_url(renewed) as client:
            assert client.ping()
        with pytest.raises(AuthenticationError), Redis.from_url(url) as client:
            client.ping()
    finally:
        child.kill()


OLD, NEW = "old-" * 10, "new-" * 10


def _admin_api_takes(secret: str) -> bool:
    now = int(time.time())
    claims = {"sub": "maria", "role": "owner", "aud": "partner-api-admin", "iss": "main-api"}
    token = jwt.encode({**claims, "iat": now, "exp": now + 60}, secret, algorithm="HS256")
    bearer = {"Authorization": f"Bearer {token}"}
    return Client().get("/admin-api/v1/partners", headers=bearer).status_code == 200


def _metrics_take(secret: str) -> bool:
    return Client().get("/metrics", headers={"Authorization": f"Bearer {secret}"}).status_code == 200


@pytest.mark.parametrize(
    ("name", "takes"), [("ADMIN_JWT_SECRET", _admin_api_takes), ("METRICS_TOKEN", _metrics_take)]
)
def test_a_changed_secret_holds_at_once_and_the_old_one_no_more(
    db: None, settings: Any, name: str, takes: Callable[[str], bool]
) -> None:
    settings.ADMIN_JWT_AUDIENCE, settings.ADMIN_JWT_ISSUER = "partner-api-admin", "main-api"
    for now, before in ((OLD, NEW), (NEW, OLD)):
        setattr(settings, name, now)
        assert (takes(now), takes(before)) == (True, False)


@pytest.mark.parametrize(
    ("name", "environment"), [("SANDBOX_TOKEN", "test"), ("MAIN_API_INTERNAL_TOKEN", "live")]
)
def test_a_deed_waits_while_a_renderers_token_is_changed(
    acme: Any, order: Any, main_api: Any, settings: Any, name: str, environment: str
) -> None:
    """The other side has the new one first; the deed is made as soon as we have it too."""
    main_api.answer = SandboxApp(NEW)
    setattr(settings, name, OLD)
    Api.of(acme, environment=environment).post("/v2/deeds", order())
    deed = acme.deeds.get()
    tasks.serve(str(deed.pk))
    deed.refresh_from_db()
    assert (deed.status, deed.failure_code) == ("queued", "")
    setattr(settings, name, NEW)
    acme.deeds.update(next_attempt_at=deed.created_at)
    tasks.serve(str(deed.pk))
    deed.refresh_from_db()
    assert deed.status == "completed"
