"""Writes to a partner, and to staff, when we stopped sending to one of its endpoints."""

import structlog
from django.conf import settings
from django.core.mail import EmailMessage
from django.db import transaction
from django.utils import timezone

from webhooks.models import Endpoint

log = structlog.get_logger(__name__)

_REASONS = {
    Endpoint.Reason.FAILING: "no message was received there for {days:g} days",
    Endpoint.Reason.GONE: "it answered 410 Gone",
}


def tell_of_disabled() -> int:
    """One e-mail for each endpoint that was not told of yet; how many were sent."""
    told = 0
    for endpoint in Endpoint.objects.untold().select_related("partner")[:100]:
        # Marked first: a mail twice is worse here than one that a dead server swallowed.
        with transaction.atomic():
            is_ours = Endpoint.objects.untold().filter(pk=endpoint.pk).update(told_at=timezone.now())
        if is_ours:
            told += _tell(endpoint)
    return told


def _tell(endpoint: Endpoint) -> int:
    to = [endpoint.partner.contact_email] if endpoint.partner.contact_email else []
    if not to and not settings.STAFF_EMAILS:
        return 0
    days = settings.WEBHOOKS_DISABLE_AFTER_HOURS / 24
    reason = _REASONS[Endpoint.Reason(endpoint.disabled_reason)].format(days=days)
    host = endpoint.url.partition("?")[0]
    mail = EmailMessage(
        subject="Your webhook endpoint was disabled",
        body=(
            f"We have stopped sending events to {host}, because {reason}.\n\n"
            "What happened since is kept. Once the endpoint works again, enable it with\n"
            f"PATCH {settings.PUBLIC_BASE_URL}/v2/webhook-endpoints/{endpoint.pk} "
            '{"enabled": true}\n'
            "and have the missed events sent with POST …/replay.\n"
        ),
        to=to,
        bcc=settings.STAFF_EMAILS,
    )
    try:
        return mail.send()
    except OSError as error:
        # smtplib's errors are OSErrors too. The partner's other endpoints and the API tell the same.
        log.warning("mail_not_sent", endpoint=str(endpoint.pk), reason=type(error).__name__)
        return 0
