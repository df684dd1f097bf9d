"""Cursors for the few statements that every request runs: Postgres prepares them, and keeps their plan.

Django's own write the parameters into the text, so that each text is another one, made here and parsed
and planned there anew. Behind a pooler that gives a statement to any session, DATABASE_PREPARED_STATEMENTS
is switched off; parameters then still go beside the text. It stands below both `http` and `ops`.
"""

from django.db import connection
from django.db.backends.postgresql.base import ServerBindingCursor
from django.db.backends.utils import CursorWrapper


def cursor() -> CursorWrapper:
    """A cursor of the current connection. A parameter's type must follow from the text, or be cast in it."""
    if connection.queries_logged:
        # Django's log of queries (tests that count, DEBUG) can't show one that was prepared.
        return connection.cursor()
    connection.ensure_connection()
    with connection.wrap_database_errors:
        bare = ServerBindingCursor(connection.connection)  # type: ignore[call-arg]  # its stub has no base
        # What `connection.cursor()` does with its own.
        return connection._prepare_cursor(bare)  # type: ignore[attr-defined,no-any-return]  # noqa: SLF001
