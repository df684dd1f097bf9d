"""Reads one deed of one partner. It is what partners ask most, and building the statement anew by the ORM
costs several times what running it does; so the text is made once, from the model itself.
"""

import uuid
from collections.abc import Callable
from functools import cache
from typing import Any

from django.db import connection

from deeds.models.deed import Deed
from partner_api import prepared

Convert = Callable[[Any, Any, Any], Any]


def own_deed(partner_id: uuid.UUID, *, livemode: bool, deed_id: uuid.UUID) -> Deed | None:
    """The partner's own deed of this mode, or None for any other."""
    sql, names, converters = _statement()
    with prepared.cursor() as cursor:
        cursor.execute(sql, [deed_id, partner_id, livemode])
        row = cursor.fetchone()
    if row is None:
        return None
    values = list(row)
    for index, convert in converters:
        values[index] = convert(values[index], None, connection)
    return Deed.from_db(connection.alias, names, values)


@cache
def _statement() -> tuple[str, list[str], list[tuple[int, Convert]]]:
    """The text, the fields in its order, and what turns a column into a field's value."""
    fields = Deed._meta.concrete_fields  # noqa: SLF001 - Django's documented name
    columns = ", ".join(connection.ops.quote_name(str(field.column)) for field in fields)
    table = connection.ops.quote_name(Deed._meta.db_table)  # noqa: SLF001 - Django's documented name
    sql = f"SELECT {columns} FROM {table} WHERE id = %s AND partner_id = %s AND livemode = %s"  # noqa: S608 - names of the model
    converters = [
        (index, convert)
        for index, field in enumerate(fields)
        for convert in field.get_db_converters(connection)
    ]
    return sql, [field.attname for field in fields], converters
