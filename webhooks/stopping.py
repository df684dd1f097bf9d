"""The ends of an endpoint: disabled or deleted, and what waits for it cancelled."""

import datetime as dt

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from webhooks.event_types import EndpointNews
from webhooks.models import Delivery, Endpoint
from webhooks.outbox import publish


def disable(endpoint: Endpoint, reason: str, *, still_at: str | None = None) -> bool:
    """Stops sending to an endpoint and tells the partner's others.

    False when it was stopped before, or where a URL is given that is no longer its own.
    """
    now = timezone.now()
    with transaction.atomic():
        is_new = endpoint.disable(reason, now=now, still_at=still_at)
        if is_new:
            _cancel_open(endpoint, now=now)
            url = f"{settings.PUBLIC_BASE_URL}/v2/webhook-endpoints/{endpoint.pk}"
            news = EndpointNews.model_validate({"endpoint": endpoint.pk, "reason": str(reason), "url": url})
            publish("webhook.endpoint_disabled", news, partner=endpoint.partner, livemode=endpoint.livemode)
    return is_new


def delete(endpoint: Endpoint, by: Endpoint.Reason = Endpoint.Reason.PARTNER) -> bool:
    """Nothing is sent to it any more; what was sent stays readable. False when it was deleted before."""
    now = timezone.now()
    with transaction.atomic():
        is_done = endpoint.delete_softly(now=now, by=by)
        _cancel_open(endpoint, now=now)
    return is_done


def cancel_stranded() -> int:
    """What was under way, or being written, just when its endpoint was disabled; how many."""
    disabled = Endpoint.objects.filter(enabled=False)
    return Delivery.objects.filter(endpoint__in=disabled).cancel(now=timezone.now())


def _cancel_open(endpoint: Endpoint, *, now: dt.datetime) -> None:
    """What still waits for the endpoint; a request that is under way ends by itself."""
    Delivery.objects.filter(endpoint=endpoint).cancel(now=now)
