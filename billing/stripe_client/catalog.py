"""What is sold: products of ids that we choose, and their prices by lookup key."""

from typing import Any

from billing import stripe_facts
from billing.stripe_client import Gone, Refused
from billing.stripe_client.sdk import call, made, v1
from billing.stripe_facts import PriceFacts, PriceTerms


def ensure_product(product_id: str, *, name: str, metadata: dict[str, str]) -> bool:
    """A product of an id that we choose. True when it is new."""
    try:
        call(lambda: v1().products.retrieve(product_id))
    except Gone:
        params: Any = {"id": product_id, "name": name, "metadata": metadata}
        try:
            call(lambda: v1().products.create(params))
        except Refused as refused:
            if refused.code != "resource_already_exists":
                raise
            return False
        return True
    return False


def find_price(lookup_key: str) -> PriceFacts | None:
    """The active price with this lookup key."""
    params: Any = {"lookup_keys": [lookup_key], "active": True}
    found = call(lambda: v1().prices.list(params)).data
    if not found:
        return None
    facts = found[0].to_dict()
    terms = stripe_facts.metadata_of(facts).get("terms", "")
    return PriceFacts(facts["id"], terms)


def create_price(terms: PriceTerms, *, idempotency_key: str, marker: str) -> str:
    """Licensed without a meter; one tier is a plain price. Takes the lookup key from an older price.

    Look for it first (`find_price`). Raises StripeFault.
    """
    recurring: dict[str, Any] = {"interval": "month", "usage_type": "licensed"}
    if terms.meter:
        recurring |= {"usage_type": "metered", "meter": terms.meter}
    params: dict[str, Any] = {
        "product": terms.product,
        "currency": terms.currency.lower(),
        "nickname": terms.nickname,
        "lookup_key": terms.lookup_key,
        "transfer_lookup_key": True,
        "recurring": recurring,
        "metadata": {"terms": marker},
    }
    if len(terms.tiers) == 1:
        params["unit_amount_decimal"] = format(terms.tiers[0][1], "f")
    else:
        params |= {"billing_scheme": "tiered", "tiers_mode": "graduated"}
        params["tiers"] = [
            {"up_to": "inf" if upper is None else upper, "unit_amount_decimal": format(amount, "f")}
            for upper, amount in terms.tiers
        ]
    return str(made(v1().prices.create, params, idempotency_key).id)
