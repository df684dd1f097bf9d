"""What billing is told of deeds: the facts that a charge depends on, and which deeds should have one.

Billing can't look at deeds itself, which stand above it.
"""

import datetime as dt
import uuid
from collections.abc import Iterator

from django.db.models import QuerySet

from billing.ledger import DeedFacts
from deeds.models import Deed


def facts_of(deed: Deed, *, completed_at: dt.datetime) -> DeedFacts:
    return DeedFacts(
        partner=deed.partner,
        deed_id=deed.pk,
        deed_type=deed.deed_type,
        livemode=deed.livemode,
        is_reissue=deed.reissue_of_id is not None,
        completed_at=completed_at,
    )


def completed(
    start: dt.datetime, end: dt.datetime, partner_id: uuid.UUID | None = None
) -> Iterator[DeedFacts]:
    """The live deeds completed from `start` up to but without `end`, of one partner or of all."""
    deeds = live_completed(start, end)
    if partner_id is not None:
        deeds = deeds.filter(partner=partner_id)
    for deed in deeds.select_related("partner").defer("order", "timeline", "warnings").iterator(2000):
        if deed.completed_at is not None:
            yield facts_of(deed, completed_at=deed.completed_at)


def live_completed(start: dt.datetime, end: dt.datetime) -> QuerySet[Deed]:
    """By the index `deeds_live_completed`, whose condition it repeats."""
    status = Deed.Status.COMPLETED
    return Deed.objects.filter(livemode=True, status=status, completed_at__gte=start, completed_at__lt=end)
