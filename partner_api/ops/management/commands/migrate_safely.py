"""Migrates, one at a time: who comes second waits, and finds nothing left to do.

Two pods that start a new version together would otherwise run the same migration twice at once.
"""

import argparse
from typing import Any, Final

import psycopg
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from partner_api.ops.health import own_connection

_LOCK: Final = 0x6D696772617465  # "migrate"


class Command(BaseCommand):
    help = "Migrate the database; safe to start several times at once."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--wait-seconds", type=int, default=600, help="for another that is migrating")

    def handle(self, *args: Any, **options: Any) -> None:
        with own_connection(autocommit=True) as lock:
            lock.execute("SET idle_session_timeout = 0")
            lock.execute(f"SET statement_timeout = {options['wait_seconds'] * 1000}")
            lock.execute("SET lock_timeout = 0")
            try:
                lock.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
            except psycopg.errors.QueryCanceled as error:
                message = f"another migration has been running for {options['wait_seconds']} s"
                raise CommandError(message) from error
            with connection.cursor() as cursor:
                # An index over many rows takes longer than a request may. How long a table may be
                # waited for stays bounded: a migration that waits makes all requests behind it wait.
                cursor.execute("SET statement_timeout = 0")
            call_command("migrate", interactive=False, verbosity=options["verbosity"])
            lock.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])
