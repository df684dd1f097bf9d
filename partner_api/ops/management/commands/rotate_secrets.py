"""Encrypts every kept secret by the first of FIELD_ENCRYPTION_KEYS, after which the others can be dropped."""

from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand
from django.db import connection
from django.db.models import Model

from partner_api.ops import vault


class Command(BaseCommand):
    help = "Encrypt kept secrets anew, by the first of FIELD_ENCRYPTION_KEYS. Safe to run again."

    def handle(self, *args: Any, **options: Any) -> None:
        for model in apps.get_models():
            for field in model._meta.concrete_fields:  # noqa: SLF001 - Django's documented name
                if isinstance(field, vault.EncryptedTextField):
                    count = _rotate(model, str(field.column))
                    self.stdout.write(f"{model._meta.db_table}.{field.column}: {count} rows")  # noqa: SLF001 - Django's documented name


def _rotate(model: type[Model], column: str) -> int:
    """One statement a row, which changes nothing when the row has changed meanwhile."""
    quote = connection.ops.quote_name
    table, name = quote(model._meta.db_table), quote(column)  # noqa: SLF001 - Django's documented name
    key = quote(str(model._meta.pk.column))  # noqa: SLF001 - Django's documented name
    count = 0
    with connection.cursor() as rows, connection.cursor() as change:
        rows.execute(f"SELECT {key}, {name} FROM {table} WHERE {name} IS NOT NULL")  # noqa: S608 - our own names
        for pk, token in rows.fetchall():
            change.execute(
                f"UPDATE {table} SET {name} = %s WHERE {key} = %s AND {name} = %s",  # noqa: S608 - our own names
                [vault.rotate(token), pk, token],
            )
            count += change.rowcount
    return count
