"""Whether an inbound request comes from one of our sources, and from which: decided on its raw bytes.

A system's partners all post to one address, so the source is the one whose secret signed. All secrets
of a system's first WEBHOOKS_SOURCES_TRIED sources are tried, so that a forged request costs little, and each
comparison takes the same time. Disabled ones are counted: a further source takes no other's place. Its
sender names it in `X-Webhook-Source` (its id).
"""

import datetime as dt
import hmac
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from django.conf import settings

from keys.models import Partner
from partner_api import prepared
from partner_api.http.problems import Problem
from webhooks.models.secrets import secrets_of
from webhooks.systems import SYSTEMS

MAX_SKEW: Final = dt.timedelta(minutes=5)
_DIGEST: Final = re.compile(r"(?:sha256=)?([0-9a-f]{64})", re.IGNORECASE)
_SECONDS: Final = re.compile(r"[0-9]{1,11}")

# Written out, because building it anew by the ORM would cost a third of the request.
_CANDIDATES: Final = f"""
    SELECT s.id, s.partner_id, s.strict, s.secrets, p.status
    FROM (SELECT * FROM webhook_sources
          WHERE system = %s AND (%s::uuid IS NULL OR id = %s::uuid)
          ORDER BY id LIMIT %s) s
    JOIN {Partner._meta.db_table} p ON p.id = s.partner_id
    WHERE s.enabled
"""  # noqa: S608, SLF001 - a table's name, by Django's documented attribute


@dataclass(frozen=True)
class Known:
    """A source, as far as an inbound request needs it."""

    id: uuid.UUID
    partner_id: uuid.UUID
    strict: bool
    secrets: list[str]
    is_suspended: bool


def source_of(system: str, headers: Mapping[str, str], body: bytes, *, now: dt.datetime) -> Known:
    """The source that signed this body now, also a suspended partner's. One query.

    Raises Problem: `invalid_signature`, and `stale_signature` only once the signature was found right.
    """
    offered = _offered(SYSTEMS[system].SIGNATURE_HEADER, headers)
    timestamp = headers.get("X-Webhook-Timestamp")
    signed = body if timestamp is None else f"{timestamp}.".encode() + body
    source = None
    for candidate in _candidates(system, headers.get("X-Webhook-Source"), now):
        # No early end: the time taken does not tell whose secret it was.
        if _is_signed_by(candidate, signed, offered):
            source = candidate
    if source is None:
        raise Problem(
            "invalid_signature",
            "No secret of this system's sources made this signature; of many sources, one has to be named in "
            "X-Webhook-Source.",
        )
    _refuse_stale(source, timestamp, now)
    return source


def _offered(own_header: str, headers: Mapping[str, str]) -> bytes:
    """The digest that was sent. A header sent twice arrives joined by a comma, and is none."""
    given = [headers[name].strip() for name in (own_header, "X-Signature") if name in headers]
    if not given:
        raise Problem("invalid_signature", f"Send the signature as {own_header}, in hex.")
    match = _DIGEST.fullmatch(given[0])
    if match is None or len(set(given)) > 1:
        raise Problem("invalid_signature", "Send one signature: 64 hex digits, with or without `sha256=`.")
    return bytes.fromhex(match[1])


def _candidates(system: str, source_id: str | None, now: dt.datetime) -> list[Known]:
    named = None
    if source_id is not None:
        try:
            named = uuid.UUID(source_id)
        except ValueError as error:
            raise Problem("invalid_signature", "X-Webhook-Source is not the id of a source.") from error
    with prepared.cursor() as cursor:
        cursor.execute(_CANDIDATES, [system, named, named, settings.WEBHOOKS_SOURCES_TRIED])
        rows = cursor.fetchall()
    return [
        Known(pk, partner_id, strict, secrets_of(sealed, now), status != Partner.Status.ACTIVE)
        for pk, partner_id, strict, sealed, status in rows
    ]


def _is_signed_by(source: Known, signed: bytes, offered: bytes) -> bool:
    digests = [hmac.digest(secret.encode(), signed, "sha256") for secret in source.secrets]
    return sum(hmac.compare_digest(digest, offered) for digest in digests) > 0


def _refuse_stale(source: Known, timestamp: str | None, now: dt.datetime) -> None:
    if timestamp is None:
        if source.strict:
            raise Problem("stale_signature", "Send X-Webhook-Timestamp, and sign `{timestamp}.{body}`.")
        return
    if not _SECONDS.fullmatch(timestamp):
        raise Problem("stale_signature", "X-Webhook-Timestamp must be Unix seconds.")
    skew = abs(now.timestamp() - int(timestamp))
    if skew > MAX_SKEW.total_seconds():
        raise Problem("stale_signature", "The signature's time is more than 5 minutes from ours.")
