"""What a customer is billed by, month for month."""

import datetime as dt
from typing import Any

from billing import stripe_facts
from billing.stripe_client.sdk import PAGE, all_of, call, made, v1
from billing.stripe_facts import SubscriptionFacts


def running(customer_id: str) -> list[SubscriptionFacts]:
    """Those that have not ended."""
    params: Any = {"customer": customer_id, "limit": PAGE}
    listed = all_of(lambda: v1().subscriptions.list(params))
    return [stripe_facts.read_subscription(one) for one in listed]


def find(customer_id: str, contract: str) -> SubscriptionFacts | None:
    """The running one of a contract version (by our id)."""
    return next((one for one in running(customer_id) if one.contract == contract), None)


def read(subscription_id: str) -> SubscriptionFacts:
    """Also one that has ended. Raises Gone."""
    return stripe_facts.read_subscription(call(lambda: v1().subscriptions.retrieve(subscription_id)))


def create(
    customer_id: str,
    *,
    contract: str,
    prices: list[str],
    starts_at: dt.datetime,
    anchor_day: int,
    days_until_due: int,
    is_fee_paid: bool,
    idempotency_key: str,
) -> SubscriptionFacts:
    """From a moment on that has passed, with periods that begin at midnight UTC of the anchor day.

    With `is_fee_paid` licensed prices cost nothing until the next period. Look for it first (`find`).
    """
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
        "proration_behavior": "none" if is_fee_paid else "create_prorations",
        "metadata": {"contract": contract},
    }
    if days_until_due:
        params |= {"collection_method": "send_invoice", "days_until_due": days_until_due}

    def look() -> SubscriptionFacts | None:
        return find(customer_id, contract)

    found = made(v1().subscriptions.create, params, idempotency_key, look=look)
    return found if isinstance(found, SubscriptionFacts) else stripe_facts.read_subscription(found)


def end(subscription_id: str, at: dt.datetime | None) -> SubscriptionFacts:
    """Sets when it ends, or that it doesn't. Done again it changes nothing: it needs no key of ours.

    Raises Refused for a moment that has passed, and for one that has ended.
    """
    params: Any = {
        "cancel_at": int(at.timestamp()) if at is not None else "",
        "proration_behavior": "create_prorations",
    }
    return stripe_facts.read_subscription(call(lambda: v1().subscriptions.update(subscription_id, params)))
