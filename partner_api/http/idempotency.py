"""`Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a request that is sent again is done once.

Everything is one transaction. An advisory lock on the key is taken at its start, the view does its work,
and the answer is kept at its end; so the work and its record are committed together, and a process that
dies leaves neither, nor a lock (Postgres ends it with the connection). Of two at once the second is told
to come again. Only successes are kept: a refusal did nothing, and depends on what can be mended, so the
key stays free for the mended request.

A view switches it on by `idempotent = ("POST",)`. What it does must fit in a transaction: no calls to
other services, which it makes in `around`. What may come after the commit (waiting for a deed) it returns
as `Provisional`.
"""

import datetime as dt
import hashlib
import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import structlog
from django.conf import settings
from django.db import OperationalError, connection, transaction
from django.http import HttpResponseBase
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from partner_api.http.models import KeptAnswer
from partner_api.http.models.kept_answer import STORED
from partner_api.http.parsing import NotText
from partner_api.http.problems import FieldError, Problem, invalid

log = structlog.get_logger(__name__)

HEADER: Final = "Idempotency-Key"
_MAX_LENGTH: Final = 255
# A string of structured fields (RFC 9651 section 3.3.3), or the same characters without the quotes.
QUOTED: Final = r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])+)"'
BARE: Final = r"[\x21\x23-\x2b\x2d-\x5b\x5d-\x7e]+"
_RETRY_AFTER: Final = "1"
_LOOK: Final = f"""
    SELECT {", ".join(STORED)} FROM kept_answers WHERE scope = %s AND key = %s AND expires_at > %s
"""  # noqa: S608 - names of our own
# Two statements in one round trip. They can't be one: the look must see what was committed until the lock
# was given, and a statement sees what was committed until it began.
_LOCK_AND_LOOK: Final = f"SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0)); {_LOOK}"


class Provisional(Response):
    """An answer that is kept as it is, and that `then` may better once all is committed.

    `then` returns the answer that is sent, and that is kept from then on. Should the process die before, or
    `then` break, a repetition gets the provisional one: what it says was committed. Where `then` raises a
    Problem, the key is free again.
    """

    def __init__(self, *args: Any, then: Callable[[], Response], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.then = then


def run(
    request: Request, scope: str, act: Callable[[], HttpResponseBase], *, asker: str = ""
) -> HttpResponseBase:
    """What the act answers, or what it answered before to the same request with the same key.

    Where an `asker` is named, the same request of another is another request: it gets no answer that was
    not for it. Raises Problem: `validation_error`, `idempotency_mismatch`, `idempotency_in_progress`, and
    what the act raises.
    """
    key = key_of(request)
    if key is None:
        response = act()
        return _then(response) or response if isinstance(response, Provisional) else response
    try:
        return _once(scope, key, _fingerprint(request, asker), act)
    except Problem as problem:
        if problem.after_undoing is not None:
            problem.after_undoing()
        raise


def kept_answer(request: Request, scope: str, *, asker: str = "") -> HttpResponseBase | None:
    """What `run` would give again, for who must know before its transaction. Raises Problem, as `run` does.

    It takes no lock: None says only that nothing was kept a moment ago.
    """
    key = key_of(request)
    if key is None:
        return None
    with connection.cursor() as cursor:
        cursor.execute(_LOOK, [scope, key, timezone.now()])
        found = _as_kept(cursor.fetchone())
    return None if found is None else _again(found, _fingerprint(request, asker))


def key_elsewhere(request: Request, scope: str) -> str | None:
    """The key under which another service is asked for this request, so that it does it once as well.

    None without a key. The same key with another body is another one there.
    """
    key = key_of(request)
    if key is None:
        return None
    return hashlib.sha256(f"{scope}:{key}:{_fingerprint(request)}".encode()).hexdigest()


def _once(scope: str, key: str, fingerprint: str, act: Callable[[], HttpResponseBase]) -> HttpResponseBase:
    with transaction.atomic():
        kept = _lock_and_look(scope, key)
        if kept is not None:
            return _again(kept, fingerprint)
        response = act()
        if not isinstance(response, Response) or response.status_code >= 400:  # noqa: PLR2004 - refusals
            return response
        expires_at = timezone.now() + dt.timedelta(seconds=settings.IDEMPOTENCY_KEY_SECONDS)
        kept = KeptAnswer(scope=scope, key=key, fingerprint=fingerprint, expires_at=expires_at)
        kept.hold(response)
        kept.store()
    # The very text that is kept is sent, so that it is made once.
    return _bettered(kept, response) if isinstance(response, Provisional) else kept.as_response()


def key_of(request: Request) -> str | None:
    """The key, with or without the quotes that the draft asks for. Raises Problem `validation_error`."""
    given = request.headers.get(HEADER)
    if given is None:
        return None
    quoted = re.fullmatch(QUOTED, given.strip())
    bare = re.fullmatch(BARE, given.strip())
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else bare[0] if bare else ""
    if not 1 <= len(key) <= _MAX_LENGTH:
        message = f'It must be 1 to {_MAX_LENGTH} visible ASCII characters, such as a UUID: "8e03978e-…".'
        raise invalid([FieldError(f"/{HEADER}", "invalid_idempotency_key", message, where="header")])
    return key


def in_progress() -> Problem:
    detail = "The first request with this key is still running."
    return Problem("idempotency_in_progress", detail, headers={"Retry-After": _RETRY_AFTER})


def purge(*, now: dt.datetime) -> int:
    """Deletes what has expired, and returns how many."""
    deleted, _ = KeptAnswer.objects.expired(now).delete()
    return deleted


def _lock_and_look(scope: str, key: str) -> KeptAnswer | None:
    """Raises Problem `idempotency_in_progress` while another transaction has the key."""
    with connection.cursor() as cursor:
        name = f"idempotency:{scope}:{key}"
        cursor.execute(_LOCK_AND_LOOK, [name, scope, key, timezone.now()])
        if not cursor.fetchone()[0]:
            raise in_progress()
        cursor.nextset()
        return _as_kept(cursor.fetchone())


def _as_kept(row: tuple[Any, ...] | None) -> KeptAnswer | None:
    return None if row is None else KeptAnswer(**dict(zip(STORED, row, strict=True)))


def _again(kept: KeptAnswer, fingerprint: str) -> HttpResponseBase:
    """Raises Problem `idempotency_mismatch`."""
    if kept.fingerprint != fingerprint:
        detail = f"The key {kept.key!r} came with another request before; each needs its own."
        raise Problem("idempotency_mismatch", detail)
    return kept.as_response(is_replayed=True)


def _bettered(kept: KeptAnswer, provisional: Provisional) -> HttpResponseBase:
    mine = KeptAnswer.objects.filter(scope=kept.scope, key=kept.key, fingerprint=kept.fingerprint)
    try:
        response = _then(provisional)
    except Problem:
        # It was undone after all (a deed that failed), so that the same request may try again.
        mine.delete()
        raise
    if response is None or (response.status_code, response.data) == (
        provisional.status_code,
        provisional.data,
    ):
        return kept.as_response()
    kept.hold(response)
    mine.update(status=kept.status, headers_and_body=kept.headers_and_body)
    return kept.as_response()


def _then(provisional: Provisional) -> Response | None:
    """The better answer; None where the database left meanwhile: what was committed is true all the same."""
    try:
        return provisional.then()
    except OperationalError as error:
        log.warning("not_waited_for", reason=type(error).__name__)
        return None


def _fingerprint(request: Request, asker: str = "") -> str:
    """Hex digest of what is asked for, without regard to key order and white space in the body."""
    has_body = bool(request.parsers)
    asked = [request.method, request.get_full_path(), request.data if has_body else None]
    asked += [asker] if asker else []
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> list[str]:
    if isinstance(value, Decimal):
        return ["number", str(value)]
    if isinstance(value, NotText):
        return ["not text", value.sha256]
    message = f"a parsed body holds a {type(value).__name__}"
    raise TypeError(message)
