"""Contracts and charges for tests, made as the product makes them."""

import datetime as dt
from collections import Counter
from decimal import Decimal
from typing import Any
from uuid import uuid4

from django.db import transaction
from django.utils import timezone

from billing import contracts, ledger, provisioning
from billing.ledger import DeedFacts
from billing.models import Contract, LedgerEntry
from deeds import charges
from deeds.models import Deed
from keys import audit
from keys.models import Partner
from partner_api.local.stripe_twin.server import Twin

ACTOR = audit.Actor.command("test")
PRICES = (("grant", 0, Decimal("12.50")), ("deed", 0, Decimal("9.995")))


def agree(partner: Partner, *, starts_on: dt.date, rows: Any = PRICES, **terms: Any) -> Contract:
    full = {"model": "per_deed", "starts_on": starts_on, **terms}
    return contracts.agree(partner, full, rows, ACTOR)


def charge(partner: Partner, deed_type: str = "grant", *, at: dt.datetime | None = None) -> LedgerEntry:
    with transaction.atomic():
        entry = ledger.charge(
            DeedFacts(
                partner=partner,
                deed_id=uuid4(),
                deed_type=deed_type,
                livemode=True,
                is_reissue=False,
                completed_at=at or timezone.now(),
            )
        )
    assert entry is not None
    return entry


def deed(partner: Partner, deed_type: str = "grant", *, at: dt.datetime | None = None) -> LedgerEntry:
    """A completed live deed, and its charge."""
    moment = at or timezone.now()
    made = uncharged(partner, deed_type, at=moment)
    with transaction.atomic():
        entry = ledger.charge(charges.facts_of(made, completed_at=moment))
    assert entry is not None
    return entry


def uncharged(partner: Partner, deed_type: str = "grant", *, at: dt.datetime | None = None) -> Deed:
    """A completed live deed that nobody charged."""
    moment = at or timezone.now()
    return Deed.objects.create(
        partner=partner,
        livemode=True,
        order_id=str(uuid4()),
        deed_type=deed_type,
        order={},
        order_sha256="0" * 64,
        source="v2",
        request_id="r",
        status="completed",
        completed_at=moment,
        pdf_name="x.pdf",
        pdf_sha256="0" * 64,
        pdf_bytes=1,
        pdf_pages=1,
    )


def provisioned(partner: Partner, **terms: Any) -> Contract:
    """A contract that started with this month, at the twin."""
    terms.setdefault("starts_on", timezone.now().date().replace(day=1))
    contract = agree(partner, **terms)
    provisioning.provision(contract, ACTOR)
    contract.refresh_from_db()
    return contract


def at_twin(twin: Twin) -> list[str]:
    """The identifiers that the twin has accepted, in the order they came in each lane."""
    return [one.identifier for lane in twin.app.meters.accepted.values() for one in lane]


def twin_sum(twin: Twin) -> int:
    return int(sum(one.value for lane in twin.app.meters.accepted.values() for one in lane))


def twin_sum_by_type(twin: Twin, partner: Partner) -> Counter[str]:
    sums: Counter[str] = Counter()
    for (customer, _), lane in twin.app.meters.accepted.items():
        if customer == partner.stripe_customer.customer_id:
            for one in lane:
                sums[one.deed_type] += int(one.value)
    return sums
