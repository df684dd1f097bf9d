"""Settings of the storage, and of the calls to the Main API, that can't work or would be unsafe. They stop
every kind of process."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from django.conf import settings
from django.core import checks

_CLOUDFRONT = ("CLOUDFRONT_DOMAIN", "CLOUDFRONT_KEY_ID", "CLOUDFRONT_PRIVATE_KEY")
_WEEK_SECONDS = 7 * 24 * 3600
# What a worker's time for one deed must leave for the PDF to be checked and stored.
_BESIDE_THE_CALLS_SECONDS = 60


@checks.register(checks.Tags.security)
def storage_is_usable(app_configs: Any, **_: Any) -> list[checks.CheckMessage]:
    """Errors `partner_api.E050` and on, each with what to set."""
    return list(_faults())


@checks.register(checks.Tags.security)
def calls_fit_into_a_task(app_configs: Any, **_: Any) -> list[checks.CheckMessage]:
    """Error `partner_api.E058` where a worker would be ended while it only waits for the Main API."""
    # A body that drips is noticed a read timeout late, after the one that it may take.
    one = settings.MAIN_API_CONNECT_TIMEOUT_SECONDS + 2 * settings.MAIN_API_READ_TIMEOUT_SECONDS
    doubled = settings.MAIN_API_RETRY_SECONDS * 2 ** max(0, settings.MAIN_API_ATTEMPTS - 2)
    pause = max(settings.MAIN_API_RETRY_AFTER_MAX_SECONDS, doubled)
    longest = settings.MAIN_API_ATTEMPTS * one + (settings.MAIN_API_ATTEMPTS - 1) * pause
    if longest + _BESIDE_THE_CALLS_SECONDS <= settings.DEED_SOFT_LIMIT_SECONDS:
        return []
    message = (
        f"The calls for one deed may take {longest:.0f} s of a worker's {settings.DEED_SOFT_LIMIT_SECONDS}."
    )
    return [_error(58, message, "Lower MAIN_API_READ_TIMEOUT_SECONDS or MAIN_API_ATTEMPTS.")]


def _faults() -> Iterator[checks.Error]:
    backend = settings.STORAGE_BACKEND
    if backend not in {"local", "s3"}:
        yield _error(50, f"STORAGE_BACKEND is {backend!r}.", "Set 'local' or 's3'.")
    if settings.PDF_RETENTION_DAYS < 0:
        yield _error(56, "PDF_RETENTION_DAYS is negative.", "Set the days, or 0 to keep PDFs for good.")
    if not 0 < settings.STORAGE_LINK_SECONDS <= _WEEK_SECONDS:
        yield _error(57, "STORAGE_LINK_SECONDS is out of bounds.", "S3 signs for a week at most.")
    if backend == "s3":
        yield from _faults_of_s3()


def _faults_of_s3() -> Iterator[checks.Error]:
    if not settings.S3_BUCKET:
        yield _error(51, "S3_BUCKET is missing.", "Name the bucket that keeps the PDFs.")
    if settings.S3_SSE not in {"AES256", "aws:kms"}:
        yield _error(52, f"S3_SSE is {settings.S3_SSE!r}.", "PDFs are encrypted: set 'AES256' or 'aws:kms'.")
    elif settings.S3_KMS_KEY_ID and settings.S3_SSE != "aws:kms":
        yield _error(52, "S3_KMS_KEY_ID is set, but S3_SSE is AES256.", "Set S3_SSE=aws:kms to use the key.")
    endpoint = urlsplit(settings.S3_ENDPOINT_URL)
    if settings.IS_PRODUCTION and settings.S3_ENDPOINT_URL and endpoint.scheme != "https":
        yield _error(53, "S3_ENDPOINT_URL is not https.", "PDFs travel to this address.")
    given = [name for name in _CLOUDFRONT if getattr(settings, name)]
    if given and len(given) < len(_CLOUDFRONT):
        missing = ", ".join(name for name in _CLOUDFRONT if name not in given)
        yield _error(54, f"{missing} is missing.", f"CloudFront needs all of {', '.join(_CLOUDFRONT)}.")
    elif given and not _is_rsa_key(settings.CLOUDFRONT_PRIVATE_KEY):
        yield _error(
            55, "CLOUDFRONT_PRIVATE_KEY is no RSA key.", "Set the PEM text, or CLOUDFRONT_PRIVATE_KEY_FILE."
        )


def _is_rsa_key(pem: str) -> bool:
    try:
        return isinstance(load_pem_private_key(pem.encode(), password=None), RSAPrivateKey)
    except (ValueError, TypeError):
        return False


def _error(number: int, message: str, hint: str) -> checks.Error:
    return checks.Error(message, hint=hint, id=f"partner_api.E{number:03}")
