"""What a partner or staff may do with an endpoint, each with its entry in the audit trail."""

import datetime as dt
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from keys import audit
from keys.audit import Actor
from keys.models import Partner
from partner_api.http.problems import FieldError, Problem, invalid, not_found
from webhooks import outbox, signing, stopping
from webhooks.addresses import why_refused
from webhooks.models import Endpoint
from webhooks.reading import EndpointBody, EndpointChange

MAX_ENDPOINTS: Final = 50


class Overtaken(Exception):
    """Another has changed the endpoint since it was read."""


def create(
    actor: Actor, partner: Partner, body: EndpointBody, *, livemode: bool, refusal: Problem | None
) -> tuple[Endpoint, str]:
    """The endpoint and its secret. Raises Problem `validation_error`.

    `refusal` is what `addresses.why_refused` said of its URL, and is raised. It was asked before, because
    this runs in the transaction of an idempotent request.
    """
    if refusal is not None:
        raise refusal
    if partner.webhook_endpoints.standing().filter(livemode=livemode).count() >= MAX_ENDPOINTS:
        raise invalid([FieldError("", "too_many", f"There are {MAX_ENDPOINTS} endpoints; delete one first.")])
    secret = signing.new_secret()
    endpoint = Endpoint(
        partner=partner,
        livemode=livemode,
        url=body.url,
        event_types=body.event_types,
        description=body.description,
    )
    endpoint.give_secret(secret, now=timezone.now(), overlap=dt.timedelta(0))
    with transaction.atomic():
        endpoint.save(force_insert=True)
        _record(actor, "created", endpoint, after=_facts(endpoint))
    return endpoint, secret


def change(
    actor: Actor, endpoint: Endpoint, body: EndpointChange, *, reason: str = "", as_read: bool = False
) -> None:
    """By a partner, and by staff without `enabled`; `endpoint` has the new values afterwards.

    With `as_read`, raises Overtaken where what is to change is not any more what `endpoint` was read with:
    the name in a URL may take seconds to be looked up.

    Raises Problem `validation_error`; `endpoint_disabled_by_staff` for one that only staff enable;
    `not_found` for one that was deleted meanwhile.
    """
    given = body.given()
    enabled, url = given.pop("enabled", None), given.pop("url", None)
    refusal = why_refused(url) if url is not None else None
    if refusal is not None:
        raise refusal
    with transaction.atomic():
        held = Endpoint.objects.standing().select_for_update(no_key=True).filter(pk=endpoint.pk).first()
        if held is None:
            raise not_found()
        if as_read and any(getattr(held, name) != getattr(endpoint, name) for name in body.given()):
            raise Overtaken
        if enabled and held.disabled_reason == Endpoint.Reason.STAFF:
            detail = "We have disabled this endpoint, and enable it once it is clear why: write to support."
            raise Problem("endpoint_disabled_by_staff", detail)
        if given:
            Endpoint.objects.filter(pk=held.pk).update(**given)
        if url is not None and url != held.url:
            held.move(url)
        if enabled and not held.enable():
            held.clear_record()
        elif enabled is False:
            stopping.disable(held, Endpoint.Reason.PARTNER)
        endpoint.refresh_from_db()
        _record_change(actor, held, endpoint, reason)


def _record_change(actor: Actor, before: Endpoint, after: Endpoint, reason: str) -> None:
    facts = _facts(after)
    if before.url != after.url and _facts(before)["url"] == facts["url"]:
        # The query may hold a secret: that it is another one is all that is kept.
        facts["query_changed"] = True
    if facts != _facts(before):
        _record(actor, "changed", after, before=_facts(before), after=facts, reason=reason)


def set_enabled(actor: Actor, endpoint: Endpoint, *, enabled: bool, reason: str = "") -> bool:
    """By staff. False when nothing was to be done."""
    before = _facts(endpoint)
    with transaction.atomic():
        is_done = endpoint.enable() if enabled else stopping.disable(endpoint, Endpoint.Reason.STAFF)
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
    actor: Actor,
    endpoint: Endpoint,
    *,
    since: dt.datetime,
    until: dt.datetime | None,
    undelivered_only: bool,
    reason: str,
) -> int:
    """By staff: all events since then once more; how many. Raises what `outbox.replay` raises."""
    with transaction.atomic():
        queued = outbox.replay(endpoint, since=since, until=until, undelivered_only=undelivered_only)
        asked = {"since": since.isoformat(), "undelivered_only": undelivered_only, "queued": queued}
        asked |= {"until": until.isoformat()} if until else {}
        _record(actor, "replayed", endpoint, after=asked, reason=reason)
    return queued


def delete(
    actor: Actor, endpoint: Endpoint, *, by: Endpoint.Reason = Endpoint.Reason.PARTNER, reason: str = ""
) -> bool:
    """False when it was deleted before."""
    with transaction.atomic():
        is_done = stopping.delete(endpoint, by)
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
