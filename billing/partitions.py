"""The request log's partitions: one for each month in UTC, made ahead, dropped when they are old.

What fits no month's partition goes to the default one, so that a missing partition loses nothing; making
the partition later moves those rows into it.
"""

import datetime as dt
import re
from dataclasses import dataclass
from typing import Final

from django.db import connection, transaction

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


def make(months: list[Month]) -> list[Month]:
    """Makes the partitions that are missing, with the rows that went to the default one meanwhile."""
    made = [month for month in months if month not in existing()]
    for month in made:
        with transaction.atomic(), connection.cursor() as cursor:
            start, end = month.start.isoformat(), month.plus(1).start.isoformat()
            # Another process may make the same one; and no row may slip into the default meanwhile.
            cursor.execute("LOCK TABLE api_usage, api_usage_default IN SHARE ROW EXCLUSIVE MODE")
            if month in existing():
                continue
            # All names and bounds are made of numbers, here.
            cursor.execute(f"CREATE TABLE {month.table} (LIKE api_usage INCLUDING ALL)")
            moving = "DELETE FROM api_usage_default WHERE at >= %s AND at < %s RETURNING *"
            cursor.execute(
                f"WITH moved AS ({moving}) INSERT INTO {month.table} SELECT * FROM moved",  # noqa: S608 - the same
                [start, end],
            )
            cursor.execute(
                f"ALTER TABLE api_usage ATTACH PARTITION {month.table}"
                f" FOR VALUES FROM ('{start}') TO ('{end}')"
            )
    return made


def drop_before(month: Month) -> list[Month]:
    """Drops the partitions of earlier months, and such rows of the default one."""
    old = [one for one in existing() if one < month]
    for one in old:
        with connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE IF EXISTS {one.table}")
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM api_usage_default WHERE at < %s", [month.start])
    return old


def rows_without_partition() -> int:
    """How many rows the default partition holds: none, while all is well."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM api_usage_default")
        return int(cursor.fetchone()[0])
