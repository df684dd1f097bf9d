"""Encrypts what is kept encrypted by the first of FIELD_ENCRYPTION_KEYS; then the others can be dropped."""

from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand

from partner_api.ops import vault


class Command(BaseCommand):
    help = "Encrypt all that is kept encrypted anew, by the first of FIELD_ENCRYPTION_KEYS. Safe to repeat."

    def handle(self, *args: Any, **options: Any) -> None:
        for model in apps.get_models():
            for field in vault.rotatable(model):
                count = vault.rotate_all(model, field)
                self.stdout.write(f"{model._meta.db_table}.{field.column}: {count} rows")  # noqa: SLF001 - Django's documented name
