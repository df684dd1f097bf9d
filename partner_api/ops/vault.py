"""What must be read back (signing secrets, bodies with names), as fields that are encrypted in the database.

Neither can be filtered by. `manage.py rotate_secrets` finds the fields of every model.
"""

from typing import Any, Final, Protocol

from django.db import connection, models

from partner_api.encryption import (
    decrypt,
    decrypt_bytes,
    encrypt,
    encrypt_bytes,
    rotate,
    rotate_bytes,
)

__all__ = [
    "EncryptedBinaryField",
    "EncryptedTextField",
    "Rotatable",
    "decrypt",
    "encrypt_bytes",
    "rotatable",
    "rotate_all",
]

_BATCH: Final = 200
# So begins each of Fernet's tokens: a version, and the first bytes of the time.
_TOKEN: Final = b"gAAAA"


class Rotatable(Protocol):
    """A field whose column holds tokens, and that says how one is renewed."""

    column: str

    def rotated(self, token: Any) -> Any: ...


class EncryptedTextField(models.TextField):  # type: ignore[type-arg]  # not subscriptable at run time
    """Text that stands encrypted in the database. No text is no secret, and stays as it is."""

    def get_prep_value(self, value: Any) -> Any:
        return encrypt(value) if value else value

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return decrypt(value) if value else value

    def rotated(self, token: Any) -> Any:
        return rotate(token) if token else token


class EncryptedBinaryField(models.BinaryField):  # type: ignore[type-arg]  # not subscriptable at run time
    """Bytes that stand encrypted in the database, none as well; they come back as they were, as `bytes`.

    What a version before wrote in the clear while this one was rolled out is read as it is, and encrypted
    by `rotate_secrets`.
    """

    def get_db_prep_value(
        self,
        value: Any,
        connection: Any,
        prepared: bool = False,  # noqa: FBT001, FBT002 - Django's own signature
    ) -> Any:
        token = value if value is None else encrypt_bytes(bytes(value))
        return super().get_db_prep_value(token, connection, prepared)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        if value is None:
            return None
        content = bytes(value)
        return decrypt_bytes(content) if content.startswith(_TOKEN) else content

    def rotated(self, token: Any) -> Any:
        content = bytes(token)
        return rotate_bytes(content) if content.startswith(_TOKEN) else encrypt_bytes(content)


def rotatable(model: type[models.Model]) -> list[Rotatable]:
    """Fields of other modules as well: whatever has a `rotated`."""
    fields: list[Any] = list(model._meta.concrete_fields)  # noqa: SLF001 - Django's documented name
    return [field for field in fields if hasattr(field, "rotated")]


def rotate_all(model: type[models.Model], field: Rotatable) -> int:
    """Encrypts a column anew by the first key, a batch at a time; how many rows.

    One statement a row, which changes nothing when the row has changed meanwhile.
    """
    quote = connection.ops.quote_name
    names = (model._meta.db_table, field.column, str(model._meta.pk.column))  # noqa: SLF001 - Django's documented name
    table, name, key = (quote(one) for one in names)
    page = f"SELECT {key}, {name} FROM {table} WHERE {name} IS NOT NULL"  # noqa: S608 - our own names
    change = f"UPDATE {table} SET {name} = %s WHERE {key} = %s AND {name} = %s"  # noqa: S608 - the same
    count, rows = 0, _fetch(f"{page} ORDER BY {key} LIMIT {_BATCH}", [])
    while rows:
        with connection.cursor() as cursor:
            for pk, token in rows:
                cursor.execute(change, [field.rotated(token), pk, token])
                count += cursor.rowcount
        rows = _fetch(f"{page} AND {key} > %s ORDER BY {key} LIMIT {_BATCH}", [rows[-1][0]])
    return count


def _fetch(statement: str, values: list[Any]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        rows: list[Any] = cursor.fetchall()
    return rows
