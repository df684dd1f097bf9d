"""What production refuses to start with."""

from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.contrib import admin
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from keys.models import Partner
from partner_api.ops.checks import production_is_secure, refuse_insecure_start
from partner_api.ops.logging import logging_config

SECURE: dict[str, Any] = {
    "IS_PRODUCTION": True,
    "DEBUG": False,
    "SECRET_KEY": "k" * 64,
    "ALLOWED_HOSTS": ["api.example.com"],
    "PUBLIC_BASE_URL": "https://api.example.com",
    "MAIN_API_BASE_URL": "https://main.example.com",
    "MAIN_API_INTERNAL_TOKEN": "token",
    "SANDBOX_TOKEN": "token",
    "SECURE_SSL_REDIRECT": True,
    "ADMIN_JWT_SECRET": "s" * 32,
    "SETUP_SECRET": "s" * 32,
    "ADMIN_ALLOWED_CIDRS": ["203.0.113.0/24"],
    "STRIPE_SECRET_KEY": "sk_live_key",
    "STRIPE_WEBHOOK_SECRETS": ["whsec_secret"],
    "STRIPE_API_BASE": "https://api.stripe.com",
}


@pytest.fixture
def secure(settings: Any) -> Any:
    for name, value in SECURE.items():
        setattr(settings, name, value)
    return settings


def test_a_secure_production_starts(secure: Any) -> None:
    assert production_is_secure(None) == []
    refuse_insecure_start()


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("DEBUG", True, "E001"),
        ("SECRET_KEY", "short", "E002"),
        ("SECRET_KEY", "django-insecure-" + "k" * 60, "E002"),
        ("ALLOWED_HOSTS", [], "E003"),
        ("ALLOWED_HOSTS", ["*"], "E003"),
        ("PUBLIC_BASE_URL", "http://api.example.com", "E004"),
        ("MAIN_API_BASE_URL", "", "E005"),
        ("MAIN_API_BASE_URL", "http://main.example.com", "E006"),
        ("MAIN_API_INTERNAL_TOKEN", "", "E007"),
        ("SANDBOX_TOKEN", "", "E008"),
        ("SECURE_SSL_REDIRECT", False, "E009"),
        ("FIELD_ENCRYPTION_KEYS", [], "E011"),
        ("FIELD_ENCRYPTION_KEYS", ["only-to-load-the-settings"], "E011"),
        ("FIELD_ENCRYPTION_KEYS", [Fernet.generate_key().decode(), "ü"], "E011"),
        ("KEY_ROTATION_OVERLAP_SECONDS", 604_801, "E046"),
        ("KEY_ROTATION_OVERLAP_SECONDS", -1, "E046"),
        ("ADMIN_JWKS_URL", "https://id.example.com/jwks", "E041"),
        ("ADMIN_JWT_SECRET", "short", "E042"),
        ("SETUP_SECRET", "short", "E044"),
        ("ADMIN_ALLOWED_CIDRS", ["203.0.113.9/24"], "E045"),
        ("ADMIN_API_ALLOWED_CIDRS", ["office"], "E045"),
        ("STRIPE_SECRET_KEY", "sk_test_key", "E060"),
        ("STRIPE_WEBHOOK_SECRETS", [], "E061"),
        ("STRIPE_API_BASE", "http://stripe.example.com", "E062"),
        ("WEBHOOKS_ALLOW_HTTP", True, "E070"),
        ("WEBHOOKS_ALLOW_PRIVATE_ADDRESSES", ["10.0.0.0/8"], "E071"),
    ],
)
def test_an_insecure_value_is_refused(secure: Any, name: str, value: Any, code: str) -> None:
    setattr(secure, name, value)
    assert [error.id for error in production_is_secure(None)] == [f"partner_api.{code}"]
    with pytest.raises(ImproperlyConfigured, match=code):
        refuse_insecure_start()


def test_keys_fetched_in_the_open_are_refused(secure: Any) -> None:
    secure.ADMIN_JWT_SECRET, secure.ADMIN_JWKS_URL = "", "http://id.example.com/jwks"
    assert [error.id for error in production_is_secure(None)] == ["partner_api.E043"]


def test_a_database_without_a_password_is_refused(secure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(secure.DATABASES["default"], "PASSWORD", "")
    assert [error.id for error in production_is_secure(None)] == ["partner_api.E010"]


def test_production_starts_without_stripe(secure: Any) -> None:
    secure.STRIPE_SECRET_KEY = ""
    secure.STRIPE_WEBHOOK_SECRETS = []
    assert production_is_secure(None) == []


def test_elsewhere_nothing_is_refused(secure: Any) -> None:
    secure.IS_PRODUCTION = False
    secure.DEBUG = True
    assert production_is_secure(None) == []


def test_an_unknown_log_format_is_refused() -> None:
    with pytest.raises(ValueError, match="'json' or 'console'"):
        logging_config(level="INFO", log_format="xml")


def test_the_admins_pages_are_loaded_to_be_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.run_checks(tags=[checks.Tags.admin]) == []
    page = admin.site.get_model_admin(Partner)
    monkeypatch.setattr(type(page), "list_display", ("nonsense",))
    assert [found.id for found in checks.run_checks(tags=[checks.Tags.admin])] == ["admin.E108"]
