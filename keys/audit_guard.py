"""Whether the database itself still refuses to change the audit trail: it is asked to, and what it lets
through is undone.

Nothing of the chain shows that a trigger was taken away, until somebody makes use of it.
"""

from typing import Final

from django.db import DatabaseError, connection, transaction

_TRIES: Final = (
    "UPDATE audit_entries SET actor = actor WHERE id = (SELECT min(id) FROM audit_entries)",
    "DELETE FROM audit_entries WHERE id = (SELECT min(id) FROM audit_entries)",
    "DELETE FROM audit_head",
)
# Raised by our trigger, a role that may not write here, a connection that only reads.
_REFUSALS: Final = frozenset({"P0001", "42501", "25006"})


def let_through() -> list[str]:
    """What it would do, such as `DELETE FROM audit_head`; nothing where it refuses, or has no row to refuse.

    TRUNCATE is not tried: it would wait for everybody, and everybody for it.
    """
    return [statement.partition(" WHERE ")[0] for statement in _TRIES if _is_done(statement)]


def _is_done(statement: str) -> bool:
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
            transaction.set_rollback(True)
            return bool(cursor.rowcount > 0)
    except DatabaseError as error:
        if getattr(error.__cause__, "sqlstate", None) in _REFUSALS:
            return False
        raise
