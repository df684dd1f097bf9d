"""A look into the database for a page that must come in time, whatever the database does.

Looks have a connection of their own: from the pool, one could be waited for as long as a request may wait,
and by each look in turn. Whether the database answers at all is asked first, by a thread that is not waited
for any longer than a readiness probe is.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.db import DEFAULT_DB_ALIAS, DatabaseError, OperationalError, connection, connections, transaction

_STATEMENT_MS: Final = 1000

Look = Callable[[Iterable[Any]], list[Any]]


@contextmanager
def open_connection() -> Iterator[Look]:
    """Within it, what is given goes through `look`: it runs in a transaction whose statements have a second.

    `look` raises DatabaseError; OperationalError at once, for this and each further one, where the database
    does not answer.
    """
    from partner_api.ops import health  # noqa: PLC0415 - its views need the apps' metrics

    usual = connections[DEFAULT_DB_ALIAS]
    if usual.in_atomic_block:
        # What stands in a transaction around us (a test's) is seen from inside only.
        yield _look
        return
    if not health.answers("database"):
        yield _unanswered
        return
    own = usual.copy()
    for name in ("pool", "prepare_threshold"):
        own.settings_dict["OPTIONS"].pop(name, None)
    own.settings_dict["OPTIONS"]["connect_timeout"] = 2
    connections[DEFAULT_DB_ALIAS] = own
    try:
        yield _look
    finally:
        own.close()
        connections[DEFAULT_DB_ALIAS] = usual


def _look(found: Iterable[Any]) -> list[Any]:
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL statement_timeout = {_STATEMENT_MS}")
            things = list(found)
            with connection.cursor() as cursor:
                # In a transaction around ours (a test's) the bound would stay.
                cursor.execute("SET LOCAL statement_timeout = DEFAULT")
            return things
    except DatabaseError:
        if not connection.in_atomic_block:
            connection.close()
        raise


def _unanswered(found: Iterable[Any]) -> list[Any]:
    raise OperationalError("the database does not answer")
