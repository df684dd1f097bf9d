"""Writes the log of attempts, and forgets what is older than DEED_ATTEMPTS_KEPT_DAYS."""

import datetime as dt

from django.conf import settings

from deeds.models import Deed, DeedAttempt
from deeds.said import Said


def note(deed: Deed, outcome: str, *, now: dt.datetime, said: Said | None = None, reason: str = "") -> None:
    """One claim of the deed has ended so. `reason` must hold no fact of the order."""
    said = said or Said(calls=0)
    DeedAttempt.objects.create(
        deed_id=deed.pk,
        number=deed.attempts,
        started_at=deed.claimed_at,
        ended_at=now,
        outcome=outcome,
        calls=said.calls,
        http_status=said.status,
        main_api_request_id=said.request_id,
        generation_seconds=said.generation_seconds,
        reason=reason[:500],
    )


def last_cause(deed: Deed) -> str:
    """What is known of why the deed's last worker ended: the outcome that it could still note."""
    broke = deed.attempt_log.filter(outcome="worker_broke", started_at=deed.claimed_at)
    last = broke.order_by("-id").first()
    return last.reason if last is not None else "it was killed, or ran out of memory"


def purge(*, now: dt.datetime) -> int:
    """Deletes what has been kept long enough, and returns how many."""
    deleted, _ = DeedAttempt.objects.older_than(
        now - dt.timedelta(days=settings.DEED_ATTEMPTS_KEPT_DAYS)
    ).delete()
    return deleted
