"""Migrates, one at a time: who comes second waits, and finds nothing left to do.

Two pods that start a new version together would otherwise run the same migration twice at once.
"""

import argparse
import time
from typing import Any, Final

import psycopg
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from partner_api.ops.health import own_connection

_LOCK: Final = 0x6D696772617465  # "migrate"
_ASK_AGAIN_SECONDS: Final = 0.5


class Command(BaseCommand):
    help = "Migrate the database; safe to start several times at once."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--wait-seconds", type=int, default=600, help="for another that is migrating")

    def handle(self, *args: Any, **options: Any) -> None:
        with own_connection(autocommit=True) as lock:
            lock.execute("SET idle_session_timeout = 0")
            _wait_for(lock, options["wait_seconds"])
            with connection.cursor() as cursor:
                # An index over many rows takes longer than a request may. How long a table may be
                # waited for stays bounded: a migration that waits makes all requests behind it wait.
                cursor.execute("SET statement_timeout = 0")
            call_command("migrate", interactive=False, verbosity=options["verbosity"])
            lock.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


def _wait_for(lock: psycopg.Connection[Any], seconds: int) -> None:
    """Asks again and again. A statement that waits would hold a snapshot, which CREATE INDEX CONCURRENTLY
    in the other migration waits for: neither would ever end.
    """
    until = time.monotonic() + seconds
    while lock.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK]).fetchone() != (True,):
        if time.monotonic() >= until:
            message = f"another migration has been running for {seconds} s"
            raise CommandError(message)
        time.sleep(_ASK_AGAIN_SECONDS)
