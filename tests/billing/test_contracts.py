"""A contract's end and withdrawal: only of what is in force or to come, one change at a time."""

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
import time_machine
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.utils import timezone

from billing import contracts
from billing.models import Contract
from keys.models import AuditEntry, Partner
from partner_api.ops.health import own_connection
from tests.billing.books import ACTOR, agree, charge

NOON = dt.datetime(2026, 11, 16, 12, tzinfo=dt.UTC)
TODAY = NOON.date()


@pytest.fixture
def clock() -> Iterator[Any]:
    with time_machine.travel(NOON, tick=True) as moved:
        yield moved


def day(number: int) -> dt.date:
    return dt.date(2026, 11, number)


def refused(contract: Contract, last_day: dt.date = TODAY) -> str:
    before = Contract.objects.get(pk=contract.pk).ends_on
    with pytest.raises(ValidationError) as error:
        contracts.end(contract, last_day, ACTOR, reason="no")
    assert Contract.objects.get(pk=contract.pk).ends_on == before
    assert not AuditEntry.objects.filter(action="contract.ended").exists()
    return str(error.value)


def test_it_works(acme: Partner, clock: Any) -> None:
    contract = agree(acme, starts_on=day(1))
    contracts.end(contract, day(20), ACTOR, reason="they leave")
    contracts.end(contract, day(25), ACTOR, reason="later")
    assert Contract.objects.get().ends_on == contract.ends_on == day(25)
    assert AuditEntry.objects.filter(action="contract.ended").count() == 2


def test_one_that_is_to_come_can_be_given_a_last_day(acme: Partner, clock: Any) -> None:
    contract = agree(acme, starts_on=day(20))
    contracts.end(contract, day(25), ACTOR, reason="a trial")
    assert Contract.objects.get().ends_on == day(25)
    with pytest.raises(ValidationError):
        contracts.end(contract, day(19), ACTOR, reason="before its first")


def test_one_that_is_over_does_not_come_back(acme: Partner, clock: Any) -> None:
    contract = agree(acme, starts_on=day(1), ends_on=day(10))
    assert "in force or to come" in refused(contract)
    assert Contract.objects.in_force(acme.pk, day(12)) is None


def test_one_that_another_replaced_does_not_either(acme: Partner, clock: Any) -> None:
    first = agree(acme, starts_on=day(1))
    agree(acme, starts_on=TODAY)
    assert "in force or to come" in refused(first)


def test_one_that_was_withdrawn_stays_so(acme: Partner, clock: Any) -> None:
    contract = agree(acme, starts_on=day(20))
    contracts.withdraw(contract, ACTOR, reason="typo")
    assert "in force or to come" in refused(contract, day(25))
    with pytest.raises(ValidationError, match="withdrawn before"):
        contracts.withdraw(contract, ACTOR, reason="again")
    assert AuditEntry.objects.filter(action="contract.withdrawn").count() == 1


def test_a_day_that_has_passed_is_refused(acme: Partner, clock: Any) -> None:
    assert "today or later" in refused(agree(acme, starts_on=day(1)), day(15))


def test_one_that_was_charged_under_is_not_withdrawn(acme: Partner, clock: Any) -> None:
    contract = agree(acme, starts_on=TODAY)
    charge(acme)
    with pytest.raises(ValidationError, match="has not started"):
        contracts.withdraw(contract, ACTOR, reason="no")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("act", ["agree", "end", "withdraw"])
def test_a_change_waits_for_nobody_who_only_refers_to_the_partner(acme: Partner, act: str) -> None:
    """Such as an act that holds the audit trail, for which the change is about to wait."""
    today = timezone.now().date()
    contract = agree(acme, starts_on=today + dt.timedelta(days=5))
    with own_connection() as other, transaction.atomic(), connection.cursor() as cursor:
        other.execute("SELECT 1 FROM keys_partner WHERE id = %s FOR KEY SHARE", [acme.pk])
        cursor.execute("SET LOCAL lock_timeout = '500ms'")
        if act == "agree":
            agree(acme, starts_on=today + dt.timedelta(days=9))
        elif act == "end":
            contracts.end(contract, today + dt.timedelta(days=9), ACTOR, reason="they leave")
        else:
            contracts.withdraw(contract, ACTOR, reason="typo")
