"""From when until when a contract version's subscription bills: what the contract says, and nothing twice."""

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.test import Client
from django.utils import timezone

from billing import contracts, invoice_mirror, provisioning, reconciliation, subscribing, syncing, tasks
from billing.models import Contract, Invoice, StripeCustomer, StripeSubscription
from keys.models import Partner
from partner_api.local.stripe_twin.server import Twin
from partner_api.local.stripe_twin.world import Fault
from tests.billing.books import ACTOR, agree, charge, provisioned
from tests.billing.test_stripe_webhooks import deliver, end_of_month

NOON = dt.datetime(2026, 11, 16, 12, tzinfo=dt.UTC)
TEN = [("deed", 0, Decimal(10))]
SEVEN = [("deed", 0, Decimal(7))]


@pytest.fixture
def clock() -> Iterator[Any]:
    with time_machine.travel(NOON, tick=True) as moved:
        yield moved


def day(number: int, hour: int = 0, minute: int = 0) -> dt.datetime:
    return dt.datetime(2026, 11, number, hour, minute, tzinfo=dt.UTC)


def end_of(contract: Contract) -> dt.datetime | None:
    return StripeSubscription.objects.get(contract=contract).ends_at


def ends_at_stripe(twin: Twin) -> list[int | None]:
    return [one["cancel_at"] for one in twin.world.all("subscription")]


def billed(partner: Partner) -> int:
    return sum(Invoice.objects.filter(partner=partner, origin="stripe").values_list("total", flat=True))


def test_a_version_that_starts_today_bills_nothing_that_the_one_before_does(
    twin: Twin, acme: Partner, clock: Any
) -> None:
    first = provisioned(acme, rows=TEN)
    charge(acme)
    second = agree(acme, starts_on=NOON.date(), rows=SEVEN)
    between = charge(acme)
    tasks.provision_due()
    until = end_of(first)
    assert until is not None
    assert not StripeSubscription.objects.filter(contract=second).exists(), "the first has not ended"
    clock.shift(dt.timedelta(minutes=2))
    tasks.provision_due()
    assert StripeSubscription.objects.get(contract=second).starts_at == until
    assert end_of(first) == until
    charge(acme)
    syncing.sync()
    between.refresh_from_db()
    assert between.sync_error.startswith("outside_subscription"), "no subscription has the minute in between"
    for variance in reconciliation.find_variances(day(1), day(30)):
        if variance.kind == "sync_rejected":
            assert reconciliation.repair(variance, ACTOR)
    end_of_month(twin, clock)
    deliver(twin)
    assert invoice_mirror.release_held() == 0
    assert billed(acme) == 1000 + 700 + 700
    assert sum(entry.amount for entry in acme.ledger_entries.all()) == 2400


def test_a_fee_that_changes_is_billed_by_the_days_of_each(twin: Twin, acme: Partner, clock: Any) -> None:
    clock.move_to(day(5))
    provisioned(acme, base_fee=Decimal(100))
    agree(acme, starts_on=dt.date(2026, 11, 16), base_fee=Decimal(50))
    tasks.provision_due()
    clock.move_to(NOON)
    tasks.provision_due()
    end_of_month(twin, clock)
    deliver(twin)
    assert invoice_mirror.release_held() == 0
    december = 5000
    assert billed(acme) == 10_000 - 5_000 + 2_500 + december


def test_a_version_that_is_withdrawn_ends_nothing(twin: Twin, acme: Partner, clock: Any) -> None:
    first = provisioned(acme, base_fee=Decimal(100))
    mistake = agree(acme, starts_on=dt.date(2026, 11, 20))
    tasks.provision_due()
    assert end_of(first) == day(20)
    contracts.withdraw(mistake, ACTOR, reason="typo")
    tasks.provision_due()
    assert end_of(first) is None
    assert ends_at_stripe(twin) == [None]
    assert sum(item["amount"] for item in twin.world.all("invoiceitem")) == 0


def test_a_last_day_that_moves_moves_the_end(twin: Twin, acme: Partner, clock: Any) -> None:
    contract = provisioned(acme, ends_on=dt.date(2026, 11, 30))
    assert end_of(contract) == dt.datetime(2026, 12, 1, tzinfo=dt.UTC)
    contracts.end(contract, dt.date(2026, 11, 18), ACTOR, reason="they leave")
    tasks.provision_due()
    assert end_of(contract) == day(19)
    assert ends_at_stripe(twin) == [int(day(19).timestamp())]


def test_a_contract_that_is_over_before_anybody_looked_ends_at_stripe(
    twin: Twin, acme: Partner, clock: Any
) -> None:
    contract = provisioned(acme)
    clock.move_to(day(16, 23, 50))
    contracts.end(contract, NOON.date(), ACTOR, reason="they leave")
    clock.move_to(day(17, 0, 20))
    tasks.provision_due()
    until = end_of(contract)
    assert until is not None
    assert day(17, 0, 20) < until < day(17, 0, 22)
    clock.move_to(day(17, 1, 20))
    assert provisioning.due(timezone.now()) == []


def test_an_end_that_comes_is_not_pushed_away_by_each_look(twin: Twin, acme: Partner, clock: Any) -> None:
    first = provisioned(acme)
    agree(acme, starts_on=NOON.date())
    tasks.provision_due()
    until = end_of(first)
    clock.shift(dt.timedelta(seconds=20))
    tasks.provision_due()
    assert end_of(first) == until


def test_a_5xx_when_it_ends_does_not_last_a_day(twin: Twin, acme: Partner, clock: Any) -> None:
    first = provisioned(acme)
    agree(acme, starts_on=dt.date(2026, 11, 20))
    twin.world.faults = [Fault("500", "subscriptions/", method="POST", times=2)]
    tasks.provision_due()
    assert end_of(first) is None
    tasks.provision_due()
    assert end_of(first) == day(20)


def test_one_that_was_ended_at_stripe_stays_ended(twin: Twin, acme: Partner, clock: Any) -> None:
    contract = provisioned(acme)
    agree(acme, starts_on=dt.date(2026, 11, 20))
    twin.app.api.subscriptions.cancel({}, twin.world.all("subscription")[0]["id"])
    assert list(subscribing.ends(acme, is_dry_run=False))
    assert end_of(contract) == NOON
    assert list(subscribing.ends(acme, is_dry_run=False)) == []


def test_a_version_that_is_over_gets_no_subscription(
    twin: Twin, acme: Partner, clock: Any, staff: Client
) -> None:
    clock.move_to(day(10))
    over = agree(acme, starts_on=dt.date(2026, 11, 1), ends_on=dt.date(2026, 11, 12))
    clock.move_to(NOON)
    current = provisioned(acme, starts_on=NOON.date())
    with pytest.raises(provisioning.NotNow, match="neither in force nor the next"):
        provisioning.provision(over, ACTOR)
    chosen = {"_selected_action": str(over.pk), "action": "provision"}
    page = staff.post("/admin/billing/contractatstripe/", chosen, follow=True).content.decode()
    assert "neither in force nor the next" in page
    assert StripeSubscription.objects.get().contract == current
    assert len(twin.world.all("subscription")) == 1


def test_what_nothing_will_bill_by_the_meter_holds_up_nothing(twin: Twin, acme: Partner, clock: Any) -> None:
    """Charged under a version that was over before its partner came to Stripe."""
    clock.move_to(day(10))
    agree(acme, starts_on=dt.date(2026, 11, 1), ends_on=dt.date(2026, 11, 12))
    before = charge(acme)
    clock.move_to(NOON)
    provisioned(acme, starts_on=NOON.date())
    charge(acme)
    assert syncing.sync() == syncing.Counts(accepted=1, rejected=1)
    before.refresh_from_db()
    assert before.sync_error.startswith("contract_is_over")


def test_a_plan_writes_nothing_down(twin: Twin, acme: Partner, clock: Any) -> None:
    contract = provisioned(acme)
    twin.app.api.customers.delete({}, StripeCustomer.objects.get().customer_id)
    steps = provisioning.provision(contract, ACTOR, is_dry_run=True)
    assert [step.is_done for step in steps if "subscription from" in step.what] == [False]
    assert not StripeCustomer.objects.get().is_deleted
