"""Secrets that must be read back (signing secrets), as a field that stands encrypted in the database."""

from typing import Any

from django.db import models

from partner_api.encryption import decrypt, encrypt, rotate

__all__ = ["EncryptedTextField", "decrypt", "encrypt", "rotate"]


class EncryptedTextField(models.TextField):  # type: ignore[type-arg]  # not subscriptable at run time
    """Text that stands encrypted in the database. It can't be filtered by."""

    def get_prep_value(self, value: Any) -> Any:
        return None if value is None else encrypt(value)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else decrypt(value)
