"""Staff hear of what they must act on, by e-mail and chat: once when it begins, once when it is over.

An app registers a watch: a function that says what is wrong at the moment. What is told is a row, so
that several workers, or a worker that was killed, tell no incident twice as long as the first telling
went out, and none is forgotten because a mail server was away.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import requests
import structlog
from django.conf import settings
from django.core.mail import send_mail
from django.db import connection
from django.db.models import Count
from django.utils import timezone
from prometheus_client.core import GaugeMetricFamily, Metric

from partner_api.ops.models import Incident

log = structlog.get_logger(__name__)

_LOCK: Final = 0x7761746368  # "watch"
_TIMEOUT_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Finding:
    """What is wrong. `about` is whom it concerns, `summary` one sentence without personal data."""

    about: str
    summary: str


Watch = Callable[[], Iterable[Finding]]
_watches: dict[str, Watch] = {}


def register_watch(name: str, look: Watch) -> None:
    """Adds a kind of incident. `look` gives all findings of now; one that it no longer gives is over."""
    _watches[name] = look


def watch() -> None:
    """Opens and ends incidents, then tells of those that were not told yet."""
    for name, look in _watches.items():
        try:
            findings = {finding.about: finding for finding in look()}
        except Exception:
            # What could not be looked at is neither worse nor over.
            log.exception("watch_failed", watch=name)
            continue
        _note(name, findings)
    _tell_all()


def open_incidents() -> Iterator[Metric]:
    """For Prometheus: how many are open, by kind; also those of which there are none."""
    family = GaugeMetricFamily(
        "partner_api_incidents_open", "What staff were told of and is not over.", labels=["name"]
    )
    rows = Incident.objects.filter(ended_at=None).values_list("name").annotate(n=Count("pk"))
    counts = dict.fromkeys(_watches, 0) | dict(rows)
    for name, count in counts.items():
        family.add_metric([name], count)
    yield family


def _note(name: str, findings: dict[str, Finding]) -> None:
    now = timezone.now()
    is_open = Incident.objects.filter(name=name, ended_at=None)
    is_open.exclude(about__in=findings).update(ended_at=now)
    Incident.objects.bulk_create(
        [
            Incident(name=name, about=finding.about, summary=finding.summary[:500], opened_at=now)
            for finding in findings.values()
        ],
        ignore_conflicts=True,
    )


def _tell_all() -> None:
    """One process at a time; who comes second leaves it to the first."""
    # A lock of the session and not of a transaction: a chat server that hangs must hold nothing open.
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK])
        if not cursor.fetchone()[0]:
            return
    try:
        _tell_what_is_new()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


def _tell_what_is_new() -> None:
    for incident in Incident.objects.filter(told_at=None, ended_at=None).order_by("pk"):
        if _tell(f"{incident.name}: {incident.summary}", incident):
            Incident.objects.filter(pk=incident.pk).update(told_at=timezone.now())
    ended = Incident.objects.filter(ended_at__isnull=False, told_end_at=None)
    # What was over before anyone could be told is not worth two messages.
    ended.filter(told_at=None).update(told_end_at=timezone.now())
    for incident in ended.order_by("pk"):
        if _tell(f"over: {incident.name}: {incident.summary}", incident):
            Incident.objects.filter(pk=incident.pk).update(told_end_at=timezone.now())


def _tell(text: str, incident: Incident) -> bool:
    """Whether someone was reached; where nobody is named, the log has it."""
    log.warning(
        "incident", incident=incident.name, about=incident.about, is_over=incident.ended_at is not None
    )
    reached = [_mail(text)] if settings.STAFF_EMAILS else []
    reached += [_chat(text)] if settings.STAFF_WEBHOOK_URL else []
    return not reached or any(reached)


def _mail(text: str) -> bool:
    subject = f"[{settings.ENVIRONMENT}] {text}"[:150].replace("\n", " ")
    body = f"{text}\n\nWhat to do: docs/runbook.md. The admin: {settings.PUBLIC_BASE_URL}/admin/\n"
    try:
        send_mail(subject, body, None, settings.STAFF_EMAILS)
    except OSError as error:
        log.warning("staff_not_told", way="mail", reason=type(error).__name__)
        return False
    return True


def _chat(text: str) -> bool:
    """Slack's format, which others read too."""
    try:
        answer = requests.post(
            settings.STAFF_WEBHOOK_URL,
            json={"text": f"[{settings.ENVIRONMENT}] {text}"},
            timeout=_TIMEOUT_SECONDS,
            allow_redirects=False,
        )
    except requests.RequestException as error:
        log.warning("staff_not_told", way="webhook", reason=type(error).__name__)
        return False
    if not answer.ok:
        log.warning("staff_not_told", way="webhook", reason=f"status {answer.status_code}")
    return bool(answer.ok)
