"""Secrets are rotated as the runbook says, and nothing that was made by the old one stops working."""

import time
from typing import Any

import pytest
from cryptography.fernet import Fernet, InvalidToken
from django.core.management import call_command
from django.db import connection, models
from django.test.utils import isolate_apps

from partner_api.http import signed_links
from partner_api.ops.vault import EncryptedTextField


def test_a_link_outlives_the_key_that_signed_it(settings: Any) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "old" * 20, []
    expires = str(int(time.time()) + 60)
    signature = signed_links.sign("/x", expires_at=int(expires)).rpartition("signature=")[2]
    signature = signature.replace("%3A", ":")
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new" * 20, ["old" * 20]
    assert signed_links.is_valid("/x", expires, signature)
    settings.SECRET_KEY_FALLBACKS = []
    assert not signed_links.is_valid("/x", expires, signature)


@isolate_apps("partner_api.ops")
def test_kept_secrets_outlive_the_key_that_encrypted_them(db: None, settings: Any, monkeypatch: Any) -> None:
    class Kept(models.Model):  # noqa: DJ008 - nobody reads it
        secret = EncryptedTextField(null=True)
        objects: "models.Manager[Kept]" = models.Manager()

        class Meta:
            app_label = "ops"

    monkeypatch.setattr("django.apps.apps.get_models", lambda: [Kept])
    with connection.schema_editor() as editor:
        editor.create_model(Kept)
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    settings.FIELD_ENCRYPTION_KEYS = [old]
    Kept.objects.bulk_create([Kept(secret="whispered"), Kept(secret=None)])
    settings.FIELD_ENCRYPTION_KEYS = [new, old]
    assert Kept.objects.exclude(secret=None).get().secret == "whispered"
    for _ in range(2):
        call_command("rotate_secrets")
    settings.FIELD_ENCRYPTION_KEYS = [new]
    assert Kept.objects.exclude(secret=None).get().secret == "whispered"
    settings.FIELD_ENCRYPTION_KEYS = [old]
    with pytest.raises(InvalidToken):
        Kept.objects.exclude(secret=None).get()
