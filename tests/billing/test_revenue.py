"""What the dashboard shows as revenue: the ledger's own sums."""

import datetime as dt
from decimal import Decimal

import time_machine
from django.db import transaction

from billing import ledger, revenue
from billing.usage import Question, Range
from keys.models import Partner
from tests.billing.books import ACTOR, agree, charge

NOON = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
DAY = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
WHOLE = Range(DAY, DAY + dt.timedelta(days=1))


def test_it_works(acme: Partner) -> None:
    agree(acme, starts_on=dt.date(2026, 11, 1))
    charge(acme, at=NOON)
    charge(acme, at=NOON + dt.timedelta(minutes=59))
    charge(acme, "quitclaim", at=NOON + HOUR)
    charge(acme, at=NOON - dt.timedelta(days=1))
    assert revenue.by_period(Question(WHOLE, "day")) == {"USD": {DAY: Decimal("34.995")}}
    assert revenue.by_period(Question(WHOLE, "hour")) == {
        "USD": {NOON: Decimal(25), NOON + HOUR: Decimal("9.995")}
    }


def test_each_currency_has_its_own_and_its_own_minor_unit(acme: Partner) -> None:
    other = Partner.objects.create(name="Pacific Escrow")
    agree(acme, starts_on=dt.date(2026, 11, 1))
    agree(other, starts_on=dt.date(2026, 11, 1), rows=[("deed", 0, Decimal(1300))], currency="JPY")
    charge(acme, at=NOON)
    charge(other, at=NOON)
    found = revenue.by_period(Question(WHOLE, "day"))
    assert found == {"USD": {DAY: Decimal("12.5")}, "JPY": {DAY: Decimal(1300)}}
    assert revenue.by_period(Question(WHOLE, "day", partner=other.pk)) == {"JPY": {DAY: Decimal(1300)}}


def test_a_credit_takes_from_it(acme: Partner) -> None:
    agree(acme, starts_on=dt.date(2026, 11, 1))
    charge(acme, at=NOON)
    with time_machine.travel(NOON, tick=False), transaction.atomic():
        ledger.correct(acme, -250, reason="a deed too late", actor=ACTOR, source_id="credit")
    assert revenue.by_period(Question(WHOLE, "day")) == {"USD": {DAY: Decimal(10)}}


def test_test_mode_has_none(acme: Partner) -> None:
    agree(acme, starts_on=dt.date(2026, 11, 1))
    charge(acme, at=NOON)
    assert revenue.by_period(Question(WHOLE, "day", livemode=False)) == {}
