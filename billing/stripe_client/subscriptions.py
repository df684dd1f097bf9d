"""What a customer is billed by, month for month."""

import datetime as dt
from typing import Any

from billing import stripe_facts
from billing.stripe_client.sdk import PAGE, all_of, call, under, v1
from billing.stripe_facts import SubscriptionFacts


def running(customer_id: str) -> list[SubscriptionFacts]:
    """Those that have not ended."""
    params: Any = {"customer": customer_id, "limit": PAGE}
    listed = all_of(lambda: v1().subscriptions.list(params))
    return [stripe_facts.read_subscription(one) for one in listed]


def create(
    customer_id: str,
    *,
    contract: str,
    prices: list[str],
    starts_at: dt.datetime,
    anchor_day: int,
    days_until_due: int,
    idempotency_key: str,
) -> SubscriptionFacts:
    """From a day on, with periods that begin at midnight UTC of the anchor day."""
    params: dict[str, Any] = {
        "customer": customer_id,
        "items": [{"price": price} for price in prices],
        "backdate_start_date": int(starts_at.timestamp()),
        "billing_cycle_anchor_config": {
            "day_of_month": anchor_day,
            "hour": 0,
            "minute": 0,
            "second": 0,
        },
        "proration_behavior": "create_prorations",
        "metadata": {"contract": contract},
    }
    if days_until_due:
        params |= {"collection_method": "send_invoice", "days_until_due": days_until_due}
    made = call(lambda: v1().subscriptions.create(params, under(idempotency_key)))
    return stripe_facts.read_subscription(made)


def end(subscription_id: str, at: dt.datetime, *, idempotency_key: str) -> None:
    params: Any = {"cancel_at": int(at.timestamp()), "proration_behavior": "create_prorations"}
    call(lambda: v1().subscriptions.update(subscription_id, params, under(idempotency_key)))
