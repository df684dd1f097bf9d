"""What a contract says that one thing costs."""

import datetime as dt
import uuid
from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from django.conf import settings
from django.utils import timezone

from billing import cost_units
from billing.models import BillingPeriod, Contract
from billing.models.contract import ANY_DEED, REISSUE, REQUEST
from billing.pricing import REQUESTS_A_PRICE, Tier
from partner_api.http.suggestions import suggest

FREE: Final = (Tier(0, Decimal(0)),)


def item_of(contract: Contract | None, deed_type: str, *, is_reissue: bool) -> str:
    """As which of the contract's items a deed is counted and priced."""
    priced = {price.item for price in contract.prices.all()} if contract else set()
    if is_reissue and REISSUE in priced:
        return REISSUE
    return deed_type if deed_type in priced or ANY_DEED not in priced else ANY_DEED


def currency_of(contract: Contract | None) -> str:
    return contract.currency if contract else str(settings.BILLING_CURRENCY)


def currency_in(period: BillingPeriod) -> str:
    """In which currency the period's money is counted: by the contract of its last day so far."""
    last_day = min(timezone.now(), period.ends_at - dt.timedelta(days=1)).date()
    return currency_of(Contract.objects.in_force(period.partner_id, last_day))


def tiers_of(contract: Contract | None, item: str) -> list[Tier]:
    """The item's tiers, in order; empty where the contract has no price for it (as in a flat one)."""
    if contract is None:
        return []
    # A price for requests is one for each thousand of them.
    per = REQUESTS_A_PRICE if item == REQUEST else 1
    return [
        Tier(price.after_quantity, price.unit_price / per)
        for price in sorted(contract.prices.all(), key=lambda price: price.after_quantity)
        if price.item == item
    ]


def is_priced(contract: Contract | None, item: str) -> bool:
    """Whether somebody agreed what it costs: by a price, or by a contract in which it costs nothing more."""
    if contract is None:
        return False
    return contract.model in {Contract.Model.FLAT, Contract.Model.PER_REQUEST} or bool(
        tiers_of(contract, item)
    )


def versions(partner_id: uuid.UUID, first: dt.date, end: dt.date) -> list[tuple[Contract, dt.date, dt.date]]:
    """The contract versions in force between two days (the second excluded), each with its part of them."""
    standing = list(
        Contract.objects.standing()
        .filter(partner=partner_id, starts_on__lt=end)
        .order_by("starts_on")
        .prefetch_related("prices")
    )
    parts = []
    for number, contract in enumerate(standing):
        next_start = standing[number + 1].starts_on if number + 1 < len(standing) else end
        last = end if contract.ends_on is None else contract.ends_on + dt.timedelta(days=1)
        start, stop = max(first, contract.starts_on), min(end, next_start, last)
        if start < stop:
            parts.append((contract, start, stop))
    return parts


def problems_of(model: str, rows: Iterable[tuple[str, int, Decimal]], base_fee: Decimal) -> list[str]:
    """What is wrong with the prices of a new contract, in sentences."""
    rows = list(rows)
    items = {item for item, _, _ in rows}
    found = [
        f"The first tier of {item!r} must start after 0."
        for item in sorted(items)
        if not any(after == 0 for name, after, _ in rows if name == item)
    ]
    known = {ANY_DEED, REISSUE, REQUEST} | cost_units.deed_types()
    found += [
        f"There is no item {item[:60]!r}; {suggest(item, sorted(known))}" for item in sorted(items - known)
    ]
    deeds = items - {REQUEST, REISSUE}
    if model in {Contract.Model.FLAT, Contract.Model.HYBRID} and not base_fee:
        found.append(f"A {model} contract has a base fee.")
    if model == Contract.Model.FLAT and items - {REISSUE}:
        found.append("A flat contract has no prices; take hybrid for a fee and prices.")
    if model in {Contract.Model.PER_DEED, Contract.Model.HYBRID} and not deeds:
        found.append(f"A {model} contract has a price for at least one deed type, or for any ('deed').")
    if model == Contract.Model.PER_REQUEST and REQUEST not in items:
        found.append("A per_request contract has a price for 1,000 requests ('request').")
    return found
