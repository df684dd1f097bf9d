"""Writes to a partner, and to staff, when we stopped sending to one of its endpoints."""

import contextlib
from typing import Any

import structlog
from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.utils import timezone

from webhooks.models import Endpoint

log = structlog.get_logger(__name__)

_REASONS = {
    Endpoint.Reason.FAILING: "no message was received there for {days:g} days",
    Endpoint.Reason.GONE: "it answered 410 Gone",
}


def tell_of_disabled() -> int:
    """One e-mail for each endpoint that was not told of yet; how many were sent.

    Without a mail server nothing is marked, and a later call tells.
    """
    told = 0
    with contextlib.ExitStack() as stack:
        mails: Any = None
        for endpoint in Endpoint.objects.untold().select_related("partner")[:100]:
            if mails is None:
                mails = _server(stack)
            if mails is None:
                break
            # Marked first: a mail twice is worse here than one that a dead worker did not send.
            if Endpoint.objects.untold().filter(pk=endpoint.pk).update(told_at=timezone.now()):
                told += _tell(endpoint, mails)
    return told


def _server(stack: contextlib.ExitStack) -> Any:
    """A mail server that answers; None where none does."""
    mails = get_connection()
    try:
        mails.open()
    except OSError as error:
        log.warning("mail_server_unavailable", reason=type(error).__name__)
        return None
    stack.callback(mails.close)
    return mails


def _tell(endpoint: Endpoint, mails: Any) -> int:
    to = [endpoint.partner.contact_email] if endpoint.partner.contact_email else []
    if not to and not settings.STAFF_EMAILS:
        return 0
    days = settings.WEBHOOKS_DISABLE_AFTER_HOURS / 24
    reason = _REASONS[Endpoint.Reason(endpoint.disabled_reason)].format(days=days)
    # Without the query, where some put a secret.
    address = endpoint.url.partition("?")[0]
    mail = EmailMessage(
        subject="Your webhook endpoint was disabled",
        body=(
            f"We have stopped sending events to {address}, because {reason}.\n\n"
            "What happened since is kept. Once the endpoint works again, enable it with\n"
            f"PATCH {settings.PUBLIC_BASE_URL}/v2/webhook-endpoints/{endpoint.pk} "
            '{"enabled": true}\n'
            "and have the missed events sent with POST …/replay.\n"
        ),
        to=to,
        bcc=settings.STAFF_EMAILS,
        connection=mails,
    )
    try:
        return mail.send()
    except OSError as error:
        # smtplib's errors are OSErrors too. The partner's other endpoints and the API tell the same.
        log.warning("mail_not_sent", endpoint=str(endpoint.pk), reason=type(error).__name__)
        return 0
