"""Makes contracts and their changes: each a new version from a day on, audited."""

import datetime as dt
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Max
from django.utils import timezone

from billing import cost_units, prices, tiers
from billing.models import Contract, LedgerEntry, Price
from keys import audit
from keys.models import Partner

PriceRow = tuple[str, int, Decimal]


@transaction.atomic
def agree(partner: Partner, terms: dict[str, Any], rows: Iterable[PriceRow], actor: audit.Actor) -> Contract:
    """A partner's next version. `terms` are the contract's fields, `rows` its prices (item, after, price).

    It replaces the one before from its first day on. A partner's first contract may start in the past;
    a change may not, for what was charged keeps its price. Raises ValidationError.
    """
    rows = list(rows)
    _lock(partner)
    starts_on: dt.date = terms["starts_on"]
    anchor_day = terms.get("anchor_day", 1)
    reason = why_not_from(partner, starts_on) or tiers.why_not_from(
        partner, starts_on, rows, anchor_day=anchor_day
    )
    if reason:
        raise ValidationError(reason)
    problems = [
        *prices.problems_of(terms["model"], rows, terms.get("base_fee") or Decimal(0)),
        *cost_units.problems_of(terms.get("cost_units", {})),
    ]
    if problems:
        raise ValidationError(problems)
    latest = partner.contracts.aggregate(latest=Max("version"))["latest"] or 0
    contract = Contract(partner=partner, version=latest + 1, author=actor.name, **terms)
    contract.full_clean(validate_constraints=False)
    try:
        with transaction.atomic():
            contract.save(force_insert=True)
            Price.objects.bulk_create(
                Price(contract=contract, item=item, after_quantity=after, unit_price=price)
                for item, after, price in rows
            )
    except IntegrityError as error:
        message = "This version can't be stored: another starts on the same day, or a value is out of bounds."
        raise ValidationError(message) from error
    after = {**terms, "prices": [[item, count, str(price)] for item, count, price in rows]}
    audit.record(actor, "contract.agreed", contract, partner=partner, after=after)
    return contract


@transaction.atomic
def end(contract: Contract, last_day: dt.date, actor: audit.Actor, *, reason: str) -> None:
    """Sets a last day, today or later, of a version in force or to come. Raises ValidationError.

    One that is over stays so: it would come back for days that were lived without it.
    """
    _lock(contract.partner)
    today = timezone.now().date()
    found = Contract.objects.select_related("partner").get(pk=contract.pk)
    is_to_come = found.starts_on > today and found.withdrawn_at is None
    if not is_to_come and Contract.objects.in_force(found.partner_id, today) != found:
        message = "Only a version that is in force or to come can be ended."
        raise ValidationError(message)
    if last_day < today or last_day < found.starts_on:
        message = "The last day is today or later, and not before the first."
        raise ValidationError(message)
    before = {"ends_on": found.ends_on}
    found.ends_on = contract.ends_on = last_day
    found.save(update_fields=["ends_on"])
    after = {"ends_on": last_day}
    audit.record(
        actor, "contract.ended", found, partner=found.partner, before=before, after=after, reason=reason
    )


@transaction.atomic
def withdraw(contract: Contract, actor: audit.Actor, *, reason: str) -> None:
    """Takes back a version that nothing was charged under. Raises ValidationError for any other."""
    _lock(contract.partner)
    if contract.starts_on <= timezone.now().date() or LedgerEntry.objects.filter(contract=contract).exists():
        message = "Only a version that has not started can be withdrawn; end it, or agree a new one."
        raise ValidationError(message)
    standing = Contract.objects.standing().filter(pk=contract.pk)
    if not standing.update(withdrawn_at=timezone.now()):
        message = "This version was withdrawn before."
        raise ValidationError(message)
    audit.record(actor, "contract.withdrawn", contract, partner=contract.partner, reason=reason)


def why_not_from(partner: Partner, starts_on: dt.date) -> str | None:
    """Why a partner's next version can't start on a day, in a sentence; None where it can."""
    today = timezone.now().date()
    standing = partner.contracts.standing()
    if starts_on < today and standing.filter(starts_on__lte=today).exists():
        return "A change starts today or later: what was charged keeps its price."
    if partner.billing_periods.filter(closed_at__isnull=False, ends_at__date__gt=starts_on).exists():
        return "The first day lies in a period whose invoice is drafted."
    if standing.filter(starts_on=starts_on).exists():
        return "Another version starts on the same day; withdraw it, or start a day later."
    return None


def _lock(partner: Partner) -> None:
    """One change of a partner's contracts at a time.

    The audit trail comes first, as in every act: two that took the two in different order would wait for each
    other. Nor is the partner locked so strongly that others may not refer to it.
    """
    audit.lock()
    Partner.objects.select_for_update(no_key=True).get(pk=partner.pk)
