"""Who bills a period: Stripe, or we.

Stripe does where it has made an invoice of it, or a subscription runs in it; else its draft is ours to make
final. Both ways ask here, so that nothing is billed by both, and nothing by nobody.
"""

import datetime as dt
import uuid
from dataclasses import dataclass

from billing import stripe_client
from billing.models import BillingPeriod, Invoice, StripeSubscription


@dataclass(frozen=True)
class Billers:
    """What decides it, of one partner."""

    subscribed: tuple[tuple[dt.datetime, dt.datetime | None], ...]
    by_stripe: frozenset[uuid.UUID]
    by_us: frozenset[uuid.UUID]

    @classmethod
    def of(cls, partner_id: uuid.UUID) -> "Billers":
        own = Invoice.objects.filter(partner=partner_id).exclude(period=None)
        local, void = Invoice.Origin.LOCAL, Invoice.Status.VOID
        stripes = own.exclude(origin=local).exclude(status=void)
        # Our draft is void once Stripe's is there: what becomes of that one does not bring ours back.
        replaced = own.filter(origin=local, status=void)
        ours = own.filter(origin=local).exclude(status__in=[void, Invoice.Status.DRAFT])
        subscribed = StripeSubscription.objects.filter(contract__partner=partner_id)
        return cls(
            tuple(subscribed.values_list("starts_at", "ends_at")) if stripe_client.is_configured() else (),
            frozenset(
                stripes.values_list("period", flat=True).union(replaced.values_list("period", flat=True))
            ),
            frozenset(ours.values_list("period", flat=True)),
        )

    def is_stripe(self, period: BillingPeriod) -> bool:
        # What a partner was sent by us stays ours, whatever came to Stripe afterwards.
        if period.pk in self.by_us:
            return False
        return period.pk in self.by_stripe or any(
            starts_at < period.ends_at and (ends_at is None or ends_at > period.starts_at)
            for starts_at, ends_at in self.subscribed
        )
