"""Whether an inbound request comes from one of our sources, and from which: decided on its raw bytes.

A system's partners all post to one address, so the source is the one whose secret signed. All secrets
are tried, and each comparison takes the same time; `X-Webhook-Source` (a source's id) names one where
there are many.
"""

import datetime as dt
import hmac
import re
import uuid
from collections.abc import Mapping
from typing import Final

from django.conf import settings

from keys.models import Partner
from partner_api.http.problems import Problem
from webhooks.models import Source
from webhooks.systems import SYSTEMS

MAX_SKEW: Final = dt.timedelta(minutes=5)
_DIGEST: Final = re.compile(r"(?:sha256=)?([0-9a-f]{64})", re.IGNORECASE)
_SECONDS: Final = re.compile(r"[0-9]{1,11}")

SUSPENDED: Final = "This partner's account is suspended; nothing is accepted from its sources."


def source_of(system: str, headers: Mapping[str, str], body: bytes, *, now: dt.datetime) -> Source:
    """The source that signed this body now. One query.

    Raises Problem: `invalid_signature`, `stale_signature`, `partner_suspended`; the latter two only
    once the signature was found right.
    """
    offered = _offered(SYSTEMS[system].SIGNATURE_HEADER, headers)
    timestamp = headers.get("X-Webhook-Timestamp")
    signed = body if timestamp is None else f"{timestamp}.".encode() + body
    source = None
    for candidate in _candidates(system, headers.get("X-Webhook-Source")):
        # No early end: the time taken does not tell whose secret it was.
        if _is_signed_by(candidate, signed, offered, now):
            source = candidate
    if source is None:
        raise Problem("invalid_signature", "No secret of this system's sources made this signature.")
    _refuse_stale(source, timestamp, now)
    if source.partner.status != Partner.Status.ACTIVE:
        raise Problem("partner_suspended", SUSPENDED)
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


def _candidates(system: str, source_id: str | None) -> list[Source]:
    sources = Source.objects.filter(system=system, enabled=True).select_related("partner").order_by("id")
    if source_id is not None:
        try:
            sources = sources.filter(pk=uuid.UUID(source_id))
        except ValueError as error:
            raise Problem("invalid_signature", "X-Webhook-Source is not the id of a source.") from error
    limit = settings.WEBHOOKS_SOURCES_TRIED
    found = list(sources[: limit + 1])
    if len(found) > limit:
        raise Problem("invalid_signature", "Name your source in X-Webhook-Source; there are many here.")
    return found


def _is_signed_by(source: Source, signed: bytes, offered: bytes, now: dt.datetime) -> bool:
    digests = [hmac.digest(secret.encode(), signed, "sha256") for secret in source.secrets_at(now)]
    return sum(hmac.compare_digest(digest, offered) for digest in digests) > 0


def _refuse_stale(source: Source, timestamp: str | None, now: dt.datetime) -> None:
    if timestamp is None:
        if source.strict:
            raise Problem("stale_signature", "Send X-Webhook-Timestamp, and sign `{timestamp}.{body}`.")
        return
    if not _SECONDS.fullmatch(timestamp):
        raise Problem("stale_signature", "X-Webhook-Timestamp must be Unix seconds.")
    skew = abs(now.timestamp() - int(timestamp))
    if skew > MAX_SKEW.total_seconds():
        raise Problem("stale_signature", "The signature's time is more than 5 minutes from ours.")
