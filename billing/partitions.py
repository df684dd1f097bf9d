"""The request log's partitions: one for each month in UTC, made ahead, dropped when they are old.

What fits no month's partition goes to the default one, so that a missing partition loses nothing; making
the partition later moves those rows into it.
"""

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from django.db import connection, transaction

# Whoever adds rows to the log shares this lock until its transaction ends; whoever makes rollups anew, or
# makes or drops a month, holds it alone.
LOCK: Final = 0x7573616765  # "usage"

_NAME: Final = re.compile(r"api_usage_(\d{4})_(\d{2})")


@dataclass(frozen=True, order=True)
class Month:
    year: int
    number: int

    @classmethod
    def of(cls, moment: dt.datetime) -> "Month":
        moment = moment.astimezone(dt.UTC)
        return cls(moment.year, moment.month)

    def plus(self, months: int) -> "Month":
        years, index = divmod(self.number - 1 + months, 12)
        return Month(self.year + years, index + 1)

    @property
    def start(self) -> dt.datetime:
        return dt.datetime(self.year, self.number, 1, tzinfo=dt.UTC)

    @property
    def table(self) -> str:
        return f"api_usage_{self.year:04}_{self.number:02}"


def existing() -> list[Month]:
    """The months that have a partition, oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'api_usage'::regclass"
        )
        names = [_NAME.fullmatch(name) for (name,) in cursor.fetchall()]
    return sorted(Month(int(match[1]), int(match[2])) for match in names if match)


def make(months: Iterable[Month]) -> list[Month]:
    """Makes the partitions that are missing, with the rows that went to the default one meanwhile."""
    present = set(existing())
    return [month for month in months if month not in present and _call("make_usage_month", month)]


def drop_before(month: Month) -> list[Month]:
    """Drops the partitions of earlier months, and such rows of the default one."""
    dropped = [one for one in existing() if one < month and _call("drop_usage_month", one)]
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM api_usage_default WHERE at < %s", [month.start])
    return dropped


def rows_without_partition(first: Month, end: Month) -> int:
    """How many rows of months from `first` up to but without `end` the default partition holds."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM api_usage_default WHERE at >= %s AND at < %s", [first.start, end.start]
        )
        return int(cursor.fetchone()[0])


def _call(function: Literal["make_usage_month", "drop_usage_month"], month: Month) -> bool:
    """Whether the function had anything to do. It is the tables' owner's, and may be called by the app."""
    with transaction.atomic(), connection.cursor() as cursor:
        # A month that was missed for long has many rows to move; new ones wait in the spool.
        cursor.execute("SET LOCAL statement_timeout = 0")
        # Nobody makes rollups of a month from the log while it goes.
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        cursor.execute(f"SELECT {function}(%s)", [month.start.date()])
        return bool(cursor.fetchone()[0])
