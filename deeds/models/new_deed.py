"""Inserts one new deed. As in `own_deed`, the text is made once, from the model itself: making it anew for
each order costs more than all else that becomes of the order here.
"""

from functools import cache
from typing import Any

from django.db import connection

from deeds.models.deed import Deed
from partner_api import prepared


def insert(deed: Deed) -> bool:
    """False where another live deed stands for the order; nothing is stored then."""
    sql, fields = _statement()
    with prepared.cursor() as cursor:
        cursor.execute(
            sql, [field.get_db_prep_save(getattr(deed, field.attname), connection) for field in fields]
        )
        is_new = bool(cursor.rowcount)
    if is_new:
        deed._state.adding = False  # noqa: SLF001 - what Django's own save does
        deed._state.db = connection.alias  # noqa: SLF001 - as above
    return is_new


def take_back(deed: Deed) -> None:
    """Removes it again, in the transaction that inserted it: nothing can refer to it yet."""
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM external_deeds WHERE id = %s", [deed.pk])


@cache
def _statement() -> tuple[str, list[Any]]:
    """The text, and the fields in the order of its placeholders."""
    fields = list(Deed._meta.concrete_fields)  # noqa: SLF001 - Django's documented name
    columns = ", ".join(connection.ops.quote_name(str(field.column)) for field in fields)
    table = connection.ops.quote_name(Deed._meta.db_table)  # noqa: SLF001 - as above
    places = ", ".join(["%s"] * len(fields))
    sql = f"INSERT INTO {table} ({columns}) VALUES ({places}) ON CONFLICT DO NOTHING"  # noqa: S608 - names of the model
    return sql, fields
