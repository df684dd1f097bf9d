"""Compares what was done with what was charged, and names each difference.

Finders and repairs are registered, so that whoever adds a record to compare with (deeds above billing,
Stripe's mirror beside it) adds its own. A repair never edits: it charges what is missing, or corrects by
another entry. The `SAFE` ones may run without anybody looking.
"""

import datetime as dt
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from django.db import IntegrityError, transaction

from billing import ledger, prices
from billing.ledger import DeedFacts
from billing.models import Contract, LedgerEntry
from billing.pricing import midnight, minor, rounded
from keys import audit
from keys.models import Partner


@dataclass(frozen=True)
class Variance:
    """One difference. `subject` is the id of what it is about: a deed, a ledger entry, an invoice line.

    One `is_final` is of what was billed already: no entry of ours puts it right, people have to look.
    """

    kind: str
    partner_id: uuid.UUID
    day: dt.date
    subject: str
    detail: str
    is_final: bool = False


Finder = Callable[[dt.datetime, dt.datetime, Partner | None], Iterable[Variance]]
Repair = Callable[[Variance, audit.Actor], bool]
DeedSource = Callable[[dt.datetime, dt.datetime, uuid.UUID | None], Iterator[DeedFacts]]

KINDS: Final = (
    "missing_charge",
    "double_charge",
    "orphan_charge",
    "unsynced",
    "sync_rejected",
    "late_event",
    "price_mismatch",
    "invoice_quantity_mismatch",
    "meter_excess",
)
SAFE: set[str] = {"missing_charge"}
_finders: list[Finder] = []
_repairs: dict[str, Repair] = {}
_deed_sources: list[DeedSource] = []


def register_finder(finder: Finder) -> None:
    """`finder(start, end, partner)` gives the variances of a time, of one partner or of all."""
    if finder not in _finders:
        _finders.append(finder)


def register_repair(kind: str, repair: Repair, *, is_safe: bool) -> None:
    """`repair(variance, actor)` says whether it changed anything; safe to call twice."""
    _repairs[kind] = repair
    if is_safe:
        SAFE.add(kind)


def register_deeds(source: DeedSource) -> None:
    """`source(start, end, partner_id)` gives the facts of live deeds completed in that time."""
    if source not in _deed_sources:
        _deed_sources.append(source)


class NotCompared(Exception):
    """A finder could not look at what it compares with; the message says why."""


def find_variances(start: dt.datetime, end: dt.datetime, partner: Partner | None = None) -> list[Variance]:
    """All differences from `start` up to but without `end`, by partner and day. Raises NotCompared."""
    found, reason = compare(start, end, partner)
    if reason:
        raise NotCompared(reason)
    return found


def compare(
    start: dt.datetime, end: dt.datetime, partner: Partner | None = None
) -> tuple[list[Variance], str]:
    """The same, with what kept a finder from comparing: what the others found stands."""
    found: list[Variance] = []
    reason = ""
    for finder in (_charges, *_finders):
        try:
            found.extend(finder(start, end, partner))
        except NotCompared as error:
            reason = str(error)
    return sorted(found, key=lambda one: (str(one.partner_id), one.day, one.kind, one.subject)), reason


def is_repairable(variance: Variance) -> bool:
    return variance.kind in _repairs and not variance.is_final


def repair(variance: Variance, actor: audit.Actor) -> bool:
    """Puts one difference right. False where there is nothing (any more) to repair, or no way to."""
    return is_repairable(variance) and _repairs[variance.kind](variance, actor)


def _charges(start: dt.datetime, end: dt.datetime, partner: Partner | None) -> Iterator[Variance]:
    partner_id = partner.pk if partner else None
    deeds = {deed.deed_id: deed for source in _deed_sources for deed in source(start, end, partner_id)}
    entries = LedgerEntry.objects.filter(
        kind=LedgerEntry.Kind.DEED, occurred_at__gte=start, occurred_at__lt=end
    ).exclude(source_kind=ledger.PRICING_SOURCE)
    if partner is not None:
        entries = entries.filter(partner=partner)
    corrected = _corrected()
    agreed = _Agreed()
    charged: set[uuid.UUID] = set()
    for entry in entries.order_by("id").iterator(2000):
        deed_id = _uuid(entry.source_id)
        deed = deeds.get(deed_id) if deed_id else None
        if deed is None or deed.partner.pk != entry.partner_id:
            if str(entry.pk) not in corrected:
                yield _of(entry, "orphan_charge", f"no completed live deed {entry.source_id} of this partner")
            continue
        if deed.deed_id in charged:
            if str(entry.pk) not in corrected:
                yield _of(entry, "double_charge", f"deed {deed.deed_id} is charged by an earlier entry")
            continue
        charged.add(deed.deed_id)
        wrong = None if str(entry.pk) in corrected else agreed.what_is_wrong(entry, deed)
        if wrong:
            yield _of(entry, "price_mismatch", wrong)
    for deed in deeds.values():
        if deed.deed_id not in charged:
            day = deed.completed_at.astimezone(dt.UTC).date()
            detail = f"{deed.deed_type} deed without a ledger entry"
            yield Variance("missing_charge", deed.partner.pk, day, str(deed.deed_id), detail)


class _Agreed:
    """Whether entries have the price that was agreed for their day; contracts are read once."""

    def __init__(self) -> None:
        self._versions: dict[uuid.UUID, list[Contract]] = {}
        self._priced_later = set(
            LedgerEntry.objects.filter(source_kind=ledger.PRICING_SOURCE).values_list("source_id", flat=True)
        )

    def what_is_wrong(self, entry: LedgerEntry, deed: DeedFacts) -> str | None:
        day = entry.occurred_at.astimezone(dt.UTC).date()
        now, then = self._in_force(entry, day)
        if not entry.is_priced:
            item = prices.item_of(now, entry.deed_type, is_reissue=deed.is_reissue)
            is_settled = str(entry.pk) in self._priced_later or not prices.is_priced(now, item)
            text = "it has no price, though there is one by now (to price it prices all such of the partner)"
            return None if is_settled else text
        contract = next((one for one in (now, then) if one and one.pk == entry.contract_id), None)
        if contract is None:
            return "its contract version was not in force on its day"
        tiers = prices.tiers_of(contract, entry.item) or prices.FREE
        if entry.unit_price not in {tier.unit_price for tier in tiers} or entry.currency != contract.currency:
            return f"its price {entry.unit_price.normalize():f} {entry.currency} is none of its contract's"
        expected = minor(entry.unit_price * entry.quantity, entry.currency)
        return None if entry.amount == expected else f"its amount is {entry.amount}, not {expected}"

    def _in_force(self, entry: LedgerEntry, day: dt.date) -> tuple[Contract | None, Contract | None]:
        """The version of the day as known now, and as known when the entry was written."""
        if entry.partner_id not in self._versions:
            standing = Contract.objects.standing().filter(partner=entry.partner_id)
            self._versions[entry.partner_id] = list(
                standing.order_by("-starts_on").prefetch_related("prices")
            )
        versions = self._versions[entry.partner_id]
        known = [one for one in versions if one.created_at <= entry.created_at]
        return _latest(versions, day), _latest(known, day)


def _latest(versions: list[Contract], day: dt.date) -> Contract | None:
    started = next((one for one in versions if one.starts_on <= day), None)
    return started if started is not None and started.covers(day) else None


def _of(entry: LedgerEntry, kind: str, detail: str) -> Variance:
    return Variance(
        kind, entry.partner_id, entry.occurred_at.astimezone(dt.UTC).date(), str(entry.pk), detail
    )


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


_CORRECTION: Final = "repair:"


def _corrected() -> set[str]:
    """Entries that a correction of ours stands against."""
    made = LedgerEntry.objects.filter(source_kind="correction", source_id__startswith=_CORRECTION)
    return {source_id.removeprefix(_CORRECTION) for source_id in made.values_list("source_id", flat=True)}


def _charge_what_is_missing(variance: Variance, actor: audit.Actor) -> bool:
    deed = _deed(variance.partner_id, variance.day, variance.subject)
    if deed is None:
        return False
    try:
        with transaction.atomic():
            entry = ledger.charge(deed)
            if entry is None:
                return False
            audit.record(actor, "ledger.repaired", entry, partner=deed.partner, reason=variance.kind)
    except IntegrityError as error:
        if "one_charge_per_source" not in str(error):
            raise
        return False  # charged by now
    return True


def _credit_the_charge(variance: Variance, actor: audit.Actor) -> bool:
    entry = LedgerEntry.objects.select_related("partner").get(pk=variance.subject)
    return _correct(entry, -rounded(entry.amount), variance, actor)


def _correct_the_price(variance: Variance, actor: audit.Actor) -> bool:
    entry = LedgerEntry.objects.select_related("partner").get(pk=variance.subject)
    if not entry.is_priced:
        return ledger.price_unpriced(entry.partner, actor, is_reissue=_is_reissue) > 0
    contract = Contract.objects.in_force(entry.partner_id, entry.occurred_at.astimezone(dt.UTC).date())
    tiers = prices.tiers_of(contract, entry.item) or prices.FREE
    if contract is None or contract.currency != entry.currency or len(tiers) > 1:
        return False  # which price is the right one is for people to say
    expected = minor(tiers[0].unit_price * entry.quantity, entry.currency)
    return _correct(entry, rounded(expected) - rounded(entry.amount), variance, actor)


def _is_reissue(entry: LedgerEntry) -> bool:
    deed = _deed(entry.partner_id, entry.occurred_at.astimezone(dt.UTC).date(), entry.source_id)
    return deed is not None and deed.is_reissue


def _deed(partner_id: uuid.UUID, day: dt.date, deed_id: str) -> DeedFacts | None:
    start = midnight(day)
    # Read to the end: a source that is left halfway keeps its cursor open, whatever the charge comes to.
    found = [
        deed
        for source in _deed_sources
        for deed in source(start, start + dt.timedelta(days=1), partner_id)
        if str(deed.deed_id) == deed_id
    ]
    return found[0] if found else None


def _correct(entry: LedgerEntry, amount: int, variance: Variance, actor: audit.Actor) -> bool:
    if amount == 0:
        return False
    ledger.correct(
        entry.partner,
        amount,
        reason=f"{variance.kind}: {variance.detail}"[:500],
        actor=actor,
        source_id=f"{_CORRECTION}{entry.pk}",
        currency=entry.currency,
    )
    return True


register_repair("missing_charge", _charge_what_is_missing, is_safe=True)
register_repair("double_charge", _credit_the_charge, is_safe=False)
register_repair("orphan_charge", _credit_the_charge, is_safe=False)
register_repair("price_mismatch", _correct_the_price, is_safe=False)
