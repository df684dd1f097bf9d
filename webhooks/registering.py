"""What a partner or staff may do with an endpoint, each with its entry in the audit trail."""

import datetime as dt
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from keys import audit
from keys.audit import Actor
from keys.models import Partner
from partner_api.http.problems import FieldError, Problem, invalid
from webhooks import outbox, signing
from webhooks.models import Endpoint
from webhooks.reading import EndpointBody, EndpointChange, why_refused

MAX_ENDPOINTS: Final = 50


def create(
    actor: Actor, partner: Partner, body: EndpointBody, *, livemode: bool, refusal: Problem | None
) -> tuple[Endpoint, str]:
    """The endpoint and its secret. Raises Problem `validation_error`.

    `refusal` is what `reading.why_refused` said of its URL, and is raised. It was asked before, because
    this runs in the transaction of an idempotent request.
    """
    if refusal is not None:
        raise refusal
    if partner.webhook_endpoints.filter(livemode=livemode, deleted_at=None).count() >= MAX_ENDPOINTS:
        raise invalid([FieldError("", "too_many", f"There are {MAX_ENDPOINTS} endpoints; delete one first.")])
    secret = signing.new_secret()
    endpoint = Endpoint(
        partner=partner,
        livemode=livemode,
        url=body.url,
        event_types=list(dict.fromkeys(body.event_types)),
        description=body.description,
    )
    endpoint.give_secret(secret, now=timezone.now(), overlap=dt.timedelta(0))
    with transaction.atomic():
        endpoint.save(force_insert=True)
        _record(actor, "created", endpoint, after=_facts(endpoint))
    return endpoint, secret


def change(actor: Actor, endpoint: Endpoint, body: EndpointChange, *, reason: str = "") -> None:
    """Raises Problem `validation_error`."""
    given = body.model_dump(exclude_none=True)
    enabled = given.pop("enabled", None)
    refusal = why_refused(given["url"]) if "url" in given else None
    if refusal is not None:
        raise refusal
    before = _facts(endpoint)
    with transaction.atomic():
        if given:
            Endpoint.objects.standing().filter(pk=endpoint.pk).update(**given)
        if enabled is True:
            endpoint.enable()
        elif enabled is False:
            outbox.disable(endpoint, Endpoint.Reason.PARTNER)
        endpoint.refresh_from_db()
        after = _facts(endpoint)
        if after != before:
            _record(actor, "changed", endpoint, before=before, after=after, reason=reason)


def set_enabled(actor: Actor, endpoint: Endpoint, *, enabled: bool, reason: str = "") -> bool:
    """By staff. False when nothing was to be done."""
    before = _facts(endpoint)
    with transaction.atomic():
        is_done = endpoint.enable() if enabled else outbox.disable(endpoint, Endpoint.Reason.STAFF)
        if is_done:
            endpoint.refresh_from_db()
            verb = "enabled" if enabled else "disabled"
            _record(actor, verb, endpoint, before=before, after=_facts(endpoint), reason=reason)
    return is_done


def rotate(actor: Actor, endpoint: Endpoint, *, reason: str = "") -> str:
    """A new secret. Messages are signed by the one before too, as long as secrets overlap."""
    secret = signing.new_secret()
    overlap = dt.timedelta(hours=settings.WEBHOOKS_SECRET_OVERLAP_HOURS)
    with transaction.atomic():
        held = Endpoint.objects.select_for_update(no_key=True).get(pk=endpoint.pk)
        held.give_secret(secret, now=timezone.now(), overlap=overlap)
        held.save(update_fields=["secrets"])
        _record(actor, "secret_rotated", endpoint, reason=reason)
    return secret


def replay(
    actor: Actor, endpoint: Endpoint, *, since: dt.datetime, undelivered_only: bool, reason: str
) -> int:
    """By staff: all events since then once more; how many. Raises Problem `endpoint_disabled`."""
    with transaction.atomic():
        queued = outbox.replay(endpoint, since=since, undelivered_only=undelivered_only)
        asked = {"since": since.isoformat(), "undelivered_only": undelivered_only, "queued": queued}
        _record(actor, "replayed", endpoint, after=asked, reason=reason)
    return queued


def delete(
    actor: Actor, endpoint: Endpoint, *, by: Endpoint.Reason = Endpoint.Reason.PARTNER, reason: str = ""
) -> bool:
    """False when it was deleted before."""
    with transaction.atomic():
        is_done = outbox.delete(endpoint, by)
        if is_done:
            _record(actor, "deleted", endpoint, before=_facts(endpoint), reason=reason)
    return is_done


def _record(
    actor: Actor,
    verb: str,
    endpoint: Endpoint,
    *,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    reason: str = "",
) -> None:
    action, partner = f"webhook_endpoint.{verb}", endpoint.partner
    audit.record(actor, action, endpoint, partner=partner, before=before, after=after, reason=reason)


def _facts(endpoint: Endpoint) -> dict[str, Any]:
    """Without the secret; and without the URL's query, where some put one."""
    return {
        "url": endpoint.url.partition("?")[0],
        "event_types": endpoint.event_types,
        "description": endpoint.description,
        "enabled": endpoint.enabled,
    }
