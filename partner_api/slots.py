"""How many workers do one kind of work at once, over all machines: Postgres counts, and frees a dead one's
place. It stands below both `http` and `ops`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection
from django.db.backends.utils import CursorWrapper


@contextmanager
def slot(work: int, *, of: int) -> Iterator[bool]:
    """Whether one of `of` places for this work (a number of its own) was free; it is held until the end."""
    with connection.cursor() as cursor:
        number = next((place for place in range(of) if _take(cursor, work, place)), None)
    try:
        yield number is not None
    finally:
        if number is not None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s, %s)", [work, number])


def _take(cursor: CursorWrapper, work: int, place: int) -> bool:
    cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", [work, place])
    return bool(cursor.fetchone()[0])
