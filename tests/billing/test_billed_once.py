"""Whatever breaks, and whenever a partner comes to Stripe: each charge is billed once, by one of the two."""

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from billing import alarms, doubts, invoicing, ledger, provisioning, reconciling, settling, syncing
from billing.models import Invoice, LedgerEntry, StripeLane
from keys.models import Partner
from partner_api.local.stripe_twin.server import Twin
from partner_api.local.stripe_twin.world import Fault
from tests.billing.books import ACTOR, agree, at_twin, charge, deed, provisioned, twin_sum

State = LedgerEntry.SyncState
LATE = dt.datetime(2026, 12, 10, 12, tzinfo=dt.UTC)


@pytest.fixture
def clock() -> Iterator[Any]:
    with time_machine.travel(dt.datetime(2026, 11, 10, 12, tzinfo=dt.UTC), tick=True) as moved:
        yield moved


def unpause() -> None:
    StripeLane.objects.update(next_attempt_at=timezone.now(), lease=None, lease_expires_at=None)


def correct(partner: Partner, amount: int, source_id: str) -> LedgerEntry:
    return ledger.correct(partner, amount, reason="agreed", actor=ACTOR, source_id=source_id)


# --- a partner that comes to Stripe after months of local invoices -------------------------------


def test_what_our_invoices_have_does_not_go_to_stripe(twin: Twin, acme: Partner, clock: Any) -> None:
    contract = agree(acme, starts_on=dt.date(2026, 11, 1))
    old = [deed(acme), correct(acme, -500, "c-1"), correct(acme, 700, "c-2")]
    clock.move_to(LATE)
    invoicing.close_ended(now=timezone.now())
    new = [deed(acme), correct(acme, -100, "c-3")]
    provisioning.provision(contract, ACTOR)
    assert syncing.sync().accepted == 2
    assert {one.sync_state for one in acme.ledger_entries.filter(pk__in=[one.pk for one in old])} == {
        State.NOT_BILLABLE
    }
    assert at_twin(twin) == [str(new[0].pk)]
    assert [item["amount"] for item in twin.world.all("invoiceitem")] == [-100]
    clock.shift(dt.timedelta(minutes=11))
    run = reconciling.run(
        timezone.now() - dt.timedelta(days=40), timezone.now(), actor=ACTOR, is_repairing=True
    )
    assert (run.counts, run.repaired) == ({}, 0)
    settling.finalize(Invoice.objects.get(origin="local"), ACTOR, reason="by post")


def test_what_was_refused_for_a_month_of_ours_is_not_billed_by_a_repair(
    twin: Twin, acme: Partner, clock: Any
) -> None:
    contract = agree(acme, starts_on=dt.date(2026, 11, 1))
    entry = deed(acme)
    LedgerEntry.objects.update(sync_state=State.REJECTED, sync_error="outside_subscription: x")
    clock.move_to(LATE)
    provisioning.provision(contract, ACTOR)
    reconciling.run(timezone.now() - dt.timedelta(days=40), timezone.now(), actor=ACTOR, is_repairing=True)
    entry.refresh_from_db()
    assert entry.sync_state == State.NOT_BILLABLE
    assert twin.world.all("invoiceitem") == []


def test_the_running_period_waits_until_somebody_bills_it(twin: Twin, acme: Partner, clock: Any) -> None:
    """A contract that starts next month has a customer and no subscription; our invoice has what is now."""
    contract = agree(acme, starts_on=dt.date(2026, 12, 1))
    provisioning.provision(contract, ACTOR)
    credit = correct(acme, -500, "c-1")
    assert syncing.sync().accepted == 0
    credit.refresh_from_db()
    assert credit.sync_state == State.PENDING, "Stripe may come to bill it yet"
    clock.move_to(LATE)
    provisioning.provision(contract, ACTOR)
    unpause()
    syncing.sync()
    credit.refresh_from_db()
    assert credit.sync_state == State.NOT_BILLABLE
    assert twin.world.all("invoiceitem") == []


def test_what_stripes_invoice_took_from_ours_stays_stripes(twin: Twin, acme: Partner, clock: Any) -> None:
    """Our draft is void by then: nobody could bill what went back to it."""
    contract = agree(acme, starts_on=dt.date(2026, 11, 1))
    entry = charge(acme)
    clock.move_to(LATE)
    invoicing.close_ended(now=timezone.now())
    Invoice.objects.update(status="void")
    provisioning.provision(contract, ACTOR)
    syncing.sync()
    entry.refresh_from_db()
    assert (entry.sync_state, entry.sync_error[:20]) == (State.REJECTED, "outside_subscription")


def test_a_version_that_was_never_at_stripe_does_not_hold_up_the_next(
    twin: Twin, acme: Partner, clock: Any
) -> None:
    agree(acme, starts_on=dt.date(2026, 11, 1))
    first = charge(acme)
    clock.shift(dt.timedelta(days=1))
    provisioning.provision(agree(acme, starts_on=timezone.now().date()), ACTOR)
    second = charge(acme)
    counts = syncing.sync()
    assert (counts.accepted, counts.rejected) == (1, 1)
    assert at_twin(twin) == [str(second.pk)]
    first.refresh_from_db()
    assert first.sync_error.startswith("contract_is_over")


def test_no_alarm_for_partners_that_are_not_at_stripe(twin: Twin, acme: Partner, clock: Any) -> None:
    agree(acme, starts_on=dt.date(2026, 11, 1))
    charge(acme)
    clock.shift(dt.timedelta(days=10))
    assert list(alarms.ledger_unsynced()) == []
    assert [family.samples[0].value for family in alarms.unsynced_entries()] == [0, 0]


# --- attempts whose end nobody knows --------------------------------------------------------------


def killed(*args: Any) -> None:
    raise SystemExit


def test_deeds_of_one_minute_are_all_sent_after_a_long_pause(twin: Twin, acme: Partner, clock: Any) -> None:
    provisioned(acme)
    entries = [charge(acme), charge(acme), charge(acme)]
    twin.world.faults = [Fault("outage", "meter_events")]
    syncing.sync()
    clock.shift(dt.timedelta(hours=30))
    assert syncing.sync().accepted == 3
    assert at_twin(twin) == [str(entry.pk) for entry in entries]


def test_of_one_minute_only_what_is_missing_is_sent_after_a_long_pause(
    twin: Twin, acme: Partner, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker died after two of three were taken; none of them is marked as accepted."""
    provisioned(acme)
    entries = [charge(acme), charge(acme)]
    with monkeypatch.context() as patch:
        patch.setattr(syncing, "_write", killed)
        with pytest.raises(SystemExit):
            syncing.sync()
    third = charge(acme)
    LedgerEntry.objects.filter(pk=third.pk).update(sync_attempts=1)
    clock.shift(dt.timedelta(hours=30))
    unpause()
    assert syncing.sync().accepted == 3
    assert at_twin(twin) == [str(entry.pk) for entry in [*entries, third]]
    assert twin_sum(twin) == 3


def test_a_busy_stripe_does_not_end_a_doubt(twin: Twin, acme: Partner, clock: Any) -> None:
    provisioned(acme)
    entry = charge(acme)
    for fault in ("lost", "429"):
        twin.world.faults = [Fault(fault, "meter_events")]
        syncing.sync()
        unpause()
    entry.refresh_from_db()
    assert doubts.is_in_doubt(entry)
    clock.shift(dt.timedelta(hours=30))
    assert syncing.sync().accepted == 1
    assert twin_sum(twin) == 1


def test_what_stripe_has_already_was_sent_when_it_was_sent_first(
    twin: Twin, acme: Partner, clock: Any
) -> None:
    """Or it would look as if it had come after its invoice, and be billed a second time."""
    provisioned(acme)
    for hours in (1, 30):
        entry = charge(acme)
        asked_at = timezone.now()
        twin.world.faults = [Fault("lost", "meter_events")]
        syncing.sync()
        clock.shift(dt.timedelta(hours=hours))
        assert syncing.sync().accepted == 1
        entry.refresh_from_db()
        assert entry.synced_at is not None
        assert abs(entry.synced_at - asked_at) < dt.timedelta(minutes=1)
    assert twin_sum(twin) == 2


def test_usage_that_stripe_counted_is_not_rejected(twin: Twin, acme: Partner, clock: Any) -> None:
    contract = provisioned(acme)
    entry = charge(acme)
    twin.world.faults = [Fault("lost", "meter_events")]
    syncing.sync()
    contract.stripe_subscription.ends_at = entry.occurred_at
    contract.stripe_subscription.save()
    unpause()
    assert syncing.sync() == syncing.Counts(), "the meter may not show it yet"
    clock.shift(dt.timedelta(minutes=11))
    assert syncing.sync() == syncing.Counts(accepted=1)
    assert twin_sum(twin) == 1


# --- corrections ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["lost", "500_after"])
def test_a_correction_is_one_item_however_it_is_sent_again(
    twin: Twin, acme: Partner, clock: Any, fault: str
) -> None:
    provisioned(acme)
    charge(acme)
    entry = correct(acme, -500, "c-1")
    twin.world.faults = [Fault(fault, "invoiceitems", method="POST")]
    assert syncing.sync().faults == 1
    ended = dt.datetime(2026, 12, 1, 0, 5, tzinfo=dt.UTC)
    clock.move_to(ended)
    twin.app.billing.advance(int(ended.timestamp()))
    (draft,) = [one for one in twin.world.all("invoice") if one["status"] == "draft"]
    assert syncing.flush(acme.pk, invoice_id=draft["id"]) == 0
    (item,) = twin.world.all("invoiceitem")
    entry.refresh_from_db()
    assert entry.stripe_identifier == item["id"]


def test_a_correction_whose_call_ended_badly_is_made_by_another(
    twin: Twin, acme: Partner, clock: Any
) -> None:
    """Stripe repeats the answer of a key for a day, also that of a call that made nothing."""
    provisioned(acme)
    correct(acme, -500, "c-1")
    twin.world.faults = [Fault("500_after", "invoiceitems", method="POST")]
    syncing.sync()
    twin.world._kinds["invoiceitem"].clear()
    unpause()
    assert syncing.sync() == syncing.Counts(), "it may still be at work"
    clock.shift(dt.timedelta(minutes=2))
    assert syncing.sync().accepted == 1
    assert len(twin.world.all("invoiceitem")) == 1


def test_a_correction_goes_to_the_customer_that_is_there_now(twin: Twin, acme: Partner, clock: Any) -> None:
    contract = provisioned(acme)
    correct(acme, -500, "c-1")
    twin.world.faults = [Fault("lost", "invoiceitems", method="POST")]
    syncing.sync()
    twin.app.api.customers.delete({}, acme.stripe_customer.customer_id)
    provisioning.provision(contract, ACTOR)
    unpause()
    assert syncing.sync().accepted == 1
    acme.refresh_from_db()
    assert twin.world.all("invoiceitem")[-1]["customer"] == acme.stripe_customer.customer_id
