"""Whether Stripe has an entry that was sent to it without an answer, once it may have forgotten that.

For a day the entry's identifier keeps it to one, and it is simply sent again. Later, or where it can't be
sent any more, the meter is asked: it counts by minutes, and a lane sends in order, so what the meter has
beyond our accepted entries of a minute is that of the first ones in doubt.
"""

import datetime as dt
from typing import Final

from django.utils import timezone

from billing import sending, stripe_prices
from billing.models import LedgerEntry
from billing.models.ledger import METERED
from billing.stripe_client import metering

# Stripe knows an identifier for 24 hours at least.
REMEMBERED: Final = dt.timedelta(hours=23)
# How far its sums may be behind its events.
SETTLING: Final = dt.timedelta(minutes=10)
UNKNOWN_OUTCOMES: Final = ("no_answer", "status_")


def is_in_doubt(entry: LedgerEntry) -> bool:
    """It was about to be sent, and nobody noted how that ended; or its answer was lost."""
    return entry.sync_attempts > 0 and (not entry.sync_error or entry.sync_error.startswith(UNKNOWN_OUTCOMES))


def may_be_forgotten(entry: LedgerEntry) -> bool:
    """Whether Stripe may take its identifier for a new one."""
    return is_in_doubt(entry) and timezone.now() - entry.next_sync_at > REMEMBERED


class Doubts:
    """Of one lane in one run: each minute is asked for once, before anything more is sent for it."""

    def __init__(self, route: sending.Route) -> None:
        self._customer_id = route.customer.customer_id
        self._unclaimed: dict[dt.datetime, int] = {}

    def is_counted(self, entry: LedgerEntry) -> bool:
        """Whether Stripe has it. Write down before what was accepted. Raises Wait, StripeFault."""
        if entry.kind not in METERED:
            return False
        minute = sending.timestamp_of(entry).replace(second=0, microsecond=0)
        if minute not in self._unclaimed:
            self._unclaimed[minute] = self._beyond_ours(entry, minute)
        if self._unclaimed[minute] < entry.quantity:
            return False
        self._unclaimed[minute] -= entry.quantity
        return True

    def _beyond_ours(self, entry: LedgerEntry, minute: dt.datetime) -> int:
        end = minute + dt.timedelta(minutes=1)
        own = LedgerEntry.objects.filter(partner=entry.partner_id, item=entry.item)
        ours = own.between(minute, end).counted()
        settled = timezone.now() - SETTLING
        if entry.next_sync_at > settled or ours.filter(synced_at__gt=settled).exists():
            raise sending.Wait("stripe_counts_later", timezone.now() + SETTLING)
        meter = metering.meters().get(stripe_prices.event_name(entry.item))
        if meter is None:
            return 0
        return metering.total(meter, self._customer_id, minute, end) - ours.quantity()
