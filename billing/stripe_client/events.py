"""What Stripe tells us: its signature, then the event."""

import stripe
from django.conf import settings

from billing import stripe_facts
from billing.stripe_client import BadSignature
from billing.stripe_client.sdk import client
from billing.stripe_facts import WebhookFacts


def read(body: bytes, signature: str) -> WebhookFacts:
    """Verified against each of our secrets. Raises BadSignature, ValueError for a body that is no event."""
    for secret in settings.STRIPE_WEBHOOK_SECRETS:
        try:
            event = client().construct_event(
                body, signature, secret, tolerance=settings.STRIPE_WEBHOOK_TOLERANCE_SECONDS
            )
        except stripe.SignatureVerificationError:
            continue
        except (IndexError, UnicodeDecodeError) as error:
            raise BadSignature from error
        return stripe_facts.read_event(event)
    raise BadSignature
