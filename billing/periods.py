"""Finds a partner's billing period, and makes it when it is first asked for.

Periods of a partner follow each other without overlapping: a new anchor day counts from the end of the
running period on, and the period after it is a short one.
"""

import datetime as dt

from django.db import IntegrityError, transaction

from billing.models import BillingPeriod, Contract
from billing.pricing import Span, midnight, period_of
from keys.models import Partner


def at(partner: Partner, moment: dt.datetime) -> BillingPeriod:
    """The period that contains a moment, as a saved row."""
    return BillingPeriod.objects.at(partner.pk, moment).first() or _make(partner, moment)


def open_at(partner: Partner, moment: dt.datetime) -> BillingPeriod:
    """The same, locked until the transaction ends; where it is closed already, the first open one after it.

    What comes late is charged in a later period: an invoice that was drafted does not change. No period is
    made before one that is closed, because nobody would close it any more.
    """
    running = BillingPeriod.objects.at(partner.pk, moment).select_for_update(no_key=True).first()
    if running is not None and running.closed_at is None:
        return running
    if running is None:
        later = partner.billing_periods.exclude(closed_at=None).filter(starts_at__gt=moment)
        last_closed = later.order_by("-ends_at").first()
        running = at(partner, last_closed.ends_at if last_closed else moment)
    period = running
    while True:
        locked = BillingPeriod.objects.select_for_update(no_key=True).get(pk=period.pk)
        if locked.closed_at is None:
            return locked
        period = at(partner, locked.ends_at)


def span_of(period: BillingPeriod) -> Span:
    return Span(period.starts_at.date(), period.ends_at.date())


def full_days(period: BillingPeriod, contract: Contract) -> int:
    """How many days a whole period of the contract has around this one; a short one is a part of that."""
    return period_of(period.starts_at.date(), contract.anchor_day).days


def _make(partner: Partner, moment: dt.datetime) -> BillingPeriod:
    day = moment.astimezone(dt.UTC).date()
    contract = Contract.objects.in_force(partner.pk, day)
    span = period_of(day, contract.anchor_day if contract else 1)
    starts_at, ends_at = midnight(span.start), midnight(span.end)
    others = partner.billing_periods
    before = others.filter(ends_at__gt=starts_at, ends_at__lte=moment).order_by("-ends_at").first()
    after = others.filter(starts_at__gt=moment, starts_at__lt=ends_at).order_by("starts_at").first()
    made = BillingPeriod(
        partner=partner,
        starts_at=before.ends_at if before else starts_at,
        ends_at=after.starts_at if after else ends_at,
    )
    try:
        with transaction.atomic():
            made.save(force_insert=True)
    except IntegrityError:
        # Another process was first.
        return BillingPeriod.objects.at(partner.pk, moment).get()
    return made
