"""What a contract's prices are at Stripe: its fee licensed, each item metered, tiers graduated."""

import hashlib
import json
from collections.abc import Iterator
from decimal import Decimal

from billing import prices
from billing.models import Contract
from billing.models.contract import ANY_DEED, REISSUE, REQUEST
from billing.pricing import minor
from billing.stripe_facts import PriceTerms

BASE = "base"


def event_name(item: str) -> str:
    """The meter event of an item; one meter serves all partners."""
    return f"partner_api_{item}"


def terms_of(contract: Contract, items: list[str], meters: dict[str, str]) -> Iterator[PriceTerms]:
    """The prices that the contract needs: its fee, and one for each item."""
    product = f"contract_{contract.pk.hex}"
    if contract.base_fee:
        fee = _plain(minor(contract.base_fee, contract.currency))
        yield PriceTerms(
            BASE, lookup_key(contract, BASE), product, contract.currency, "Base fee", ((None, fee),)
        )
    for item in items:
        tiers = prices.tiers_of(contract, item)
        bounds: list[int | None] = [tier.after_quantity for tier in tiers[1:]]
        amounts = [_plain(minor(tier.unit_price, contract.currency)) for tier in tiers]
        yield PriceTerms(
            item,
            lookup_key(contract, item),
            product,
            contract.currency,
            title_of(item),
            tuple(zip([*bounds, None], amounts, strict=True)),
            meter=meters.get(event_name(item), ""),
        )


def lookup_key(contract: Contract, item: str) -> str:
    return f"contract-{contract.pk.hex}-{item}"


def marker_of(terms: PriceTerms) -> str:
    """What tells prices of other terms apart, kept in the price's metadata."""
    facts = [terms.product, terms.currency, [[upper, str(amount)] for upper, amount in terms.tiers]]
    return hashlib.sha256(json.dumps([*facts, terms.meter]).encode()).hexdigest()[:32]


def sentence_of(terms: PriceTerms) -> str:
    parts = [
        f"{amount:f} each" if upper is None else f"{amount:f} each up to {upper}"
        for upper, amount in terms.tiers
    ]
    return f"{', then '.join(parts)} ({terms.currency}, minor units)"


def title_of(item: str) -> str:
    names = {ANY_DEED: "Deeds", REISSUE: "Reissued deeds", REQUEST: "API requests"}
    return names.get(item, f"{item.replace('_', ' ').capitalize()} deeds")


def _plain(amount: Decimal) -> Decimal:
    """Without the zeros at the end, so that equal amounts read equal."""
    return amount.normalize() + 0
