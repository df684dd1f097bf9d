"""Secrets that must be read back (signing secrets) are kept encrypted, by a key that can be rotated.

The first of FIELD_ENCRYPTION_KEYS encrypts, all of them decrypt: put a new key first, re-encrypt with
`rotate`, then drop the old one.
"""

from typing import Any

from cryptography.fernet import Fernet, MultiFernet
from django.conf import settings
from django.db import models


def encrypt(text: str) -> str:
    return _fernet().encrypt(text.encode()).decode("ascii")


def decrypt(token: str) -> str:
    """Raises cryptography's InvalidToken when no key fits."""
    return _fernet().decrypt(token.encode("ascii")).decode()


def rotate(token: str) -> str:
    """The same secret, encrypted by the first key."""
    return _fernet().rotate(token.encode("ascii")).decode("ascii")


class EncryptedTextField(models.TextField):  # type: ignore[type-arg]  # not subscriptable at run time
    """Text that stands encrypted in the database. It can't be filtered by."""

    def get_prep_value(self, value: Any) -> Any:
        return None if value is None else encrypt(value)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else decrypt(value)


def _fernet() -> MultiFernet:
    return MultiFernet([Fernet(key) for key in settings.FIELD_ENCRYPTION_KEYS])
