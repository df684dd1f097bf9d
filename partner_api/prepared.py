"""Cursors for the few statements that every request runs: Postgres prepares them, and keeps their plan.

Django's own write the parameters into the text, so that each text is another one, made here and parsed
and planned there anew. Behind a pooler that gives a statement to any session, DATABASE_PREPARED_STATEMENTS
is switched off; parameters then still go beside the text. It stands below both `http` and `ops`.
"""

from typing import Any

import psycopg
from django.db import connection
from django.db.backends.postgresql.base import ServerBindingCursor
from django.db.backends.utils import CursorWrapper
from psycopg.errors import FeatureNotSupported
from psycopg.pq import TransactionStatus


def cursor() -> CursorWrapper:
    """A cursor of the current connection. A parameter's type must follow from the text, or be cast in it."""
    if connection.queries_logged:
        # Django's log of queries (tests that count, DEBUG) can't show one that was prepared.
        return connection.cursor()
    connection.ensure_connection()
    with connection.wrap_database_errors:
        bare = _Cursor(connection.connection)
        # What `connection.cursor()` does with its own.
        return connection._prepare_cursor(bare)  # type: ignore[attr-defined,no-any-return]  # noqa: SLF001


class _Cursor(ServerBindingCursor, psycopg.Cursor[Any]):  # its stub has no base
    """Postgres does not run a plan whose columns a migration has changed since; it is made anew then."""

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Raises psycopg's OperationalError where the transaction is lost: it may be tried again."""
        try:
            return super().execute(*args, **kwargs)
        except FeatureNotSupported as error:
            if self.connection.info.transaction_status != TransactionStatus.IDLE:
                message = "a table was changed under this transaction"
                raise psycopg.OperationalError(message) from error
            self.connection.execute("DEALLOCATE ALL")
            return super().execute(*args, **kwargs)
