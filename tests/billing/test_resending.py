"""A customer that was deleted at Stripe: the next one is billed what it was not, and nothing twice."""

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from billing import invoice_mirror, ledger, provisioning, reconciliation, syncing
from billing.models import Invoice, LedgerEntry, StripeCustomer, StripeLane
from keys.models import Partner
from partner_api.local.stripe_twin.server import Twin
from tests.billing.books import ACTOR, agree, at_twin, charge, provisioned
from tests.billing.test_stripe_webhooks import deliver, end_of_month

NOW = dt.datetime(2026, 11, 10, 12, tzinfo=dt.UTC)
State = LedgerEntry.SyncState


@pytest.fixture
def clock() -> Iterator[Any]:
    with time_machine.travel(NOW, tick=True) as moved:
        yield moved


def lose_customer(twin: Twin, partner: Partner) -> None:
    """Somebody deletes it at Stripe; the next hour it is made anew."""
    twin.app.api.customers.delete({}, StripeCustomer.objects.get(partner=partner).customer_id)
    for contract in provisioning.due(timezone.now()):
        provisioning.provision_quietly(contract, ACTOR)
    StripeLane.objects.update(next_attempt_at=timezone.now())


def totals(partner: Partner) -> list[int]:
    found = Invoice.objects.filter(partner=partner, origin="stripe").exclude(total=0)
    return sorted(found.values_list("total", flat=True))


def month_is_over(twin: Twin, clock: Any) -> None:
    end_of_month(twin, clock)
    deliver(twin)
    assert invoice_mirror.release_held() == 0
    deliver(twin)


def test_the_running_period_is_billed_once(twin: Twin, acme: Partner, clock: Any) -> None:
    provisioned(acme, base_fee=Decimal(100))
    twin.app.api.customers.attach(twin.world.all("customer")[0], "pm_card_visa")
    deliver(twin)
    for _ in range(3):
        charge(acme)
    syncing.sync()
    lose_customer(twin, acme)
    assert not StripeCustomer.objects.get().has_payment_method
    charge(acme)
    assert syncing.sync().accepted == 4
    month_is_over(twin, clock)
    november, december = 10_000, 10_000
    assert totals(acme) == [november, 4 * 1250 + december]


def test_what_is_sent_again_goes_under_a_name_that_stripe_has_not_seen(
    twin: Twin, acme: Partner, clock: Any
) -> None:
    provisioned(acme)
    entry = charge(acme)
    syncing.sync()
    lose_customer(twin, acme)
    syncing.sync()
    assert at_twin(twin) == [str(entry.pk), f"{entry.pk}:1"]
    lose_customer(twin, acme)
    syncing.sync()
    assert at_twin(twin)[2:] == [f"{entry.pk}:2"]


def test_what_a_final_invoice_bills_stays_billed(twin: Twin, acme: Partner, clock: Any) -> None:
    provisioned(acme)
    entry = charge(acme)
    month_is_over(twin, clock)
    assert totals(acme) == [1250]
    lose_customer(twin, acme)
    assert syncing.sync() == syncing.Counts()
    entry.refresh_from_db()
    assert entry.stripe_identifier == str(entry.pk)


def test_an_invoice_of_which_no_news_came_is_looked_up(twin: Twin, acme: Partner, clock: Any) -> None:
    provisioned(acme)
    charge(acme)
    syncing.sync()
    end_of_month(twin, clock)
    (draft,) = (one for one in twin.world.all("invoice") if one["status"] == "draft")
    twin.app.billing.finalize(draft)
    lose_customer(twin, acme)
    assert syncing.sync() == syncing.Counts()
    assert totals(acme) == [1250]


def test_a_draft_that_goes_with_it_is_billed_as_items(twin: Twin, acme: Partner, clock: Any) -> None:
    """Its period has passed: no subscription of the new customer has it."""
    provisioned(acme)
    charge(acme)
    syncing.sync()
    end_of_month(twin, clock)
    deliver(twin)
    (draft,) = (one for one in twin.world.all("invoice") if one["status"] == "draft")
    lose_customer(twin, acme)
    assert syncing.sync().rejected == 1
    (variance,) = (
        one for one in reconciliation.find_variances(NOW, timezone.now()) if one.kind == "sync_rejected"
    )
    assert reconciliation.repair(variance, ACTOR)
    (item,) = twin.world.all("invoiceitem")
    assert (item["amount"], item["customer"]) == (1250, StripeCustomer.objects.get().customer_id)
    assert invoice_mirror.release_held() == 1, "nobody finalizes the old draft"
    assert draft["status"] == "draft"
    twin.app.api.delete_invoice({}, draft["id"])
    assert invoice_mirror.release_held() == 0


def test_corrections_that_stand_on_no_invoice_are_made_again(twin: Twin, acme: Partner, clock: Any) -> None:
    provisioned(acme)
    charge(acme)
    ledger.correct(acme, -250, reason="late delivery", actor=ACTOR, source_id="c-1")
    assert syncing.sync().accepted == 2
    lose_customer(twin, acme)
    assert syncing.sync().accepted == 2
    month_is_over(twin, clock)
    assert totals(acme) == [1000]


def test_a_version_that_ended_before_is_billed_as_items(twin: Twin, acme: Partner, clock: Any) -> None:
    provisioned(acme)
    charge(acme)
    syncing.sync()
    agree(acme, starts_on=dt.date(2026, 11, 12))
    clock.move_to(dt.datetime(2026, 11, 11, 12, tzinfo=dt.UTC))
    provisioning.due(timezone.now())
    clock.move_to(dt.datetime(2026, 11, 12, 12, tzinfo=dt.UTC))
    charge(acme)
    lose_customer(twin, acme)
    assert syncing.sync() == syncing.Counts(accepted=1, rejected=1)


def test_two_that_replace_it_at_once_do_it_once(
    twin: Twin, acme: Partner, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = provisioned(acme)
    entry = charge(acme)
    syncing.sync()
    look = invoice_mirror.mirror
    twin.app.api.customers.delete({}, StripeCustomer.objects.get().customer_id)
    twin.world.new(
        "invoice", customer=StripeCustomer.objects.get().customer_id, status="gone", lines={"data": []}
    )

    def overtaken(invoice_id: str) -> None:
        monkeypatch.setattr(invoice_mirror, "mirror", look)
        for one in twin.world.all("invoice"):
            twin.world.remove(one)
        provisioning.provision(contract, ACTOR)
        StripeLane.objects.update(next_attempt_at=timezone.now())
        assert syncing.sync().accepted == 1

    monkeypatch.setattr(invoice_mirror, "mirror", overtaken)
    provisioning.provision(contract, ACTOR)
    entry.refresh_from_db()
    assert (entry.sync_state, StripeCustomer.objects.get().generation) == (State.ACCEPTED, 1)
    assert len([one for one in twin.world.all("subscription") if one["status"] == "active"]) == 1
