"""What production refuses to start with. Django's own `check --deploy` warns; these stop.

`manage.py` runs checks before most commands, but gunicorn and Celery don't: the processes that serve
call `refuse_insecure_start` themselves.
"""

import ipaddress
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from partner_api import encryption

SECRET_KEY_MIN_LENGTH = 50
MAX_ROTATION_OVERLAP_SECONDS = 7 * 86_400
SHARED_SECRET_MIN_BYTES = 32


@checks.register(checks.Tags.security)
def production_is_secure(app_configs: Any, **_: Any) -> list[checks.CheckMessage]:
    """Errors `partner_api.E001` and on, each with what to set. Silent outside production."""
    return list(_faults()) if settings.IS_PRODUCTION else []


def refuse_insecure_start() -> None:
    """Raises ImproperlyConfigured that lists every fault, so that one restart mends them all.

    Apps add to these by registering checks with the tag `security` and ids of ours.
    """
    found = checks.run_checks(tags=[checks.Tags.security])
    errors = [error for error in found if str(error.id).startswith("partner_api.E")]
    if errors:
        message = "refusing to start: " + "; ".join(f"{e.id} {e.msg} {e.hint}" for e in errors)
        raise ImproperlyConfigured(message)


def _faults() -> Iterator[checks.Error]:
    if settings.DEBUG:
        yield _error(1, "DEBUG is on.", "Unset DEBUG; error pages would show settings.")
    if not settings.ALLOWED_HOSTS or "*" in settings.ALLOWED_HOSTS:
        yield _error(3, "ALLOWED_HOSTS is empty or '*'.", "List the host names that serve the API.")
    if urlsplit(settings.PUBLIC_BASE_URL).scheme != "https":
        yield _error(4, "PUBLIC_BASE_URL is not https.", "Partners' keys travel to this address.")
    if not settings.MAIN_API_BASE_URL:
        yield _error(5, "MAIN_API_BASE_URL is missing.", "Live orders have nowhere to be rendered.")
    elif urlsplit(settings.MAIN_API_BASE_URL).scheme != "https":
        yield _error(6, "MAIN_API_BASE_URL is not https.", "The internal token travels there.")
    if not settings.MAIN_API_INTERNAL_TOKEN:
        yield _error(7, "MAIN_API_INTERNAL_TOKEN is missing.", "The Main API answers 401 without.")
    if not settings.SANDBOX_TOKEN:
        yield _error(8, "SANDBOX_TOKEN is missing.", "Set the same value for web and sandbox.")
    if not settings.SECURE_SSL_REDIRECT and getattr(settings, "SECURE_PROXY_SSL_HEADER", None) is None:
        yield _error(
            9,
            "SECURE_SSL_REDIRECT is off and no proxy is declared.",
            "Set BEHIND_TLS_PROXY=true where a proxy ends TLS, or leave the redirect on.",
        )
    if settings.DATABASES["default"].get("PASSWORD", "") == "":
        yield _error(10, "DATABASE_URL has no password.", "Give the database role a password.")
    if settings.WEBHOOKS_ALLOW_HTTP:
        yield _error(70, "WEBHOOKS_ALLOW_HTTP is on.", "Unset it; events travel over https only.")
    if settings.WEBHOOKS_ALLOW_PRIVATE_ADDRESSES:
        yield _error(
            71,
            "WEBHOOKS_ALLOW_PRIVATE_ADDRESSES is set.",
            "Unset it; partners choose the URLs, and could reach into your network.",
        )
    yield from _faults_of_keys()
    yield from _faults_of_staff()
    yield from _stripe_faults()


def _faults_of_keys() -> Iterator[checks.Error]:
    secret = settings.SECRET_KEY
    if len(secret) < SECRET_KEY_MIN_LENGTH or secret.startswith(("django-insecure", "changeme")):
        yield _error(2, "SECRET_KEY is short or an example.", "Set 50 random characters or more.")
    if not encryption.are_keys_usable():
        yield _error(
            11,
            "FIELD_ENCRYPTION_KEYS is empty, or has what is no Fernet key.",
            "Set 32 random bytes in URL-safe base64; more than one by comma.",
        )


def _faults_of_staff() -> Iterator[checks.Error]:
    if settings.ADMIN_JWT_SECRET and settings.ADMIN_JWKS_URL:
        yield _error(41, "ADMIN_JWT_SECRET and ADMIN_JWKS_URL are both set.", "Set one of them.")
    if 0 < len(settings.ADMIN_JWT_SECRET.encode()) < SHARED_SECRET_MIN_BYTES:
        yield _error(
            42, "ADMIN_JWT_SECRET is short.", "It can be guessed from one token; use 32 bytes or more."
        )
    if settings.ADMIN_JWKS_URL and urlsplit(settings.ADMIN_JWKS_URL).scheme != "https":
        yield _error(43, "ADMIN_JWKS_URL is not https.", "Who can change the answer can sign tokens.")
    if 0 < len(settings.SETUP_SECRET) < SHARED_SECRET_MIN_BYTES:
        yield _error(44, "SETUP_SECRET is short.", "Use 32 random characters or more.")
    if not 0 <= settings.KEY_ROTATION_OVERLAP_SECONDS <= MAX_ROTATION_OVERLAP_SECONDS:
        message = f"KEY_ROTATION_OVERLAP_SECONDS is not from 0 to {MAX_ROTATION_OVERLAP_SECONDS}."
        yield _error(46, message, "A rotation that names no overlap would be refused.")
    for name in ("ADMIN_ALLOWED_CIDRS", "ADMIN_API_ALLOWED_CIDRS"):
        wrong = [network for network in getattr(settings, name) if not _is_network(network)]
        if wrong:
            yield _error(45, f"{name} has {wrong[0]!r}.", "Write networks as 203.0.113.0/24, by comma.")


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _stripe_faults() -> Iterator[checks.Error]:
    stripe_key = settings.STRIPE_SECRET_KEY
    if stripe_key and not stripe_key.startswith(("sk_live_", "rk_live_")):
        yield _error(60, "STRIPE_SECRET_KEY is not a live key.", "Invoices would go to nobody.")
    if stripe_key and not settings.STRIPE_WEBHOOK_SECRETS:
        yield _error(61, "STRIPE_WEBHOOK_SECRETS is missing.", "Stripe's news could not be believed.")
    if stripe_key and urlsplit(settings.STRIPE_API_BASE).scheme != "https":
        yield _error(62, "STRIPE_API_BASE is not https.", "Stripe's key travels there.")


def _error(number: int, message: str, hint: str) -> checks.Error:
    return checks.Error(message, hint=hint, id=f"partner_api.E{number:03}")
