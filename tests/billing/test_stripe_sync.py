"""The ledger's way to Stripe: in order, once, whatever happens on the way."""

import datetime as dt
import threading
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from billing import alarms, ledger, provisioning, sending, stripe_client, syncing, tasks
from billing.models import LedgerEntry, StripeCustomer, StripeLane
from keys.models import Partner
from partner_api.local.stripe_twin.server import Twin
from partner_api.local.stripe_twin.world import Fault
from partner_api.ops.health import own_connection
from tests.billing.books import ACTOR, agree, at_twin, charge, provisioned, twin_sum, twin_sum_by_type

State = LedgerEntry.SyncState


def states(partner: Partner) -> list[str]:
    return list(partner.ledger_entries.order_by("id").values_list("sync_state", flat=True))


def unpause() -> None:
    StripeLane.objects.update(next_attempt_at=timezone.now())


def test_it_works(twin: Twin, acme: Partner) -> None:
    provisioned(acme)
    entries = [charge(acme), charge(acme), charge(acme, "warranty")]
    assert syncing.sync() == syncing.Counts(accepted=3)
    assert sorted(at_twin(twin)) == sorted(str(entry.pk) for entry in entries)
    first = LedgerEntry.objects.get(pk=entries[0].pk)
    assert first.stripe_identifier == str(first.pk)
    assert first.synced_at is not None
    assert syncing.sync() == syncing.Counts()
    assert len(at_twin(twin)) == 3


def test_entries_of_a_meter_go_in_order(twin: Twin, acme: Partner) -> None:
    provisioned(acme)
    entries = [charge(acme) for _ in range(20)]
    syncing.sync()
    assert at_twin(twin) == [str(entry.pk) for entry in entries]


def test_a_slow_stripe_holds_one_worker_and_not_all(twin: Twin, acme: Partner) -> None:
    provisioned(acme)
    charge(acme)
    with own_connection() as other:
        other.execute("SELECT pg_advisory_lock(%s, 0)", [tasks._SYNCING])
        tasks.sync()
        assert states(acme) == [State.PENDING]
        other.execute("SELECT pg_advisory_unlock(%s, 0)", [tasks._SYNCING])
    tasks.sync()
    assert states(acme) == [State.ACCEPTED]


def test_without_a_key_nothing_is_sent(twin: Twin, acme: Partner, settings: Any) -> None:
    provisioned(acme)
    settings.STRIPE_SECRET_KEY = ""
    charge(acme)
    assert syncing.sync() == syncing.Counts()
    assert states(acme) == [State.PENDING]
    assert at_twin(twin) == []


def test_a_partner_that_is_not_at_stripe_waits(twin: Twin, acme: Partner) -> None:
    agree(acme, starts_on=timezone.now().date())
    charge(acme)
    assert syncing.sync() == syncing.Counts()
    assert states(acme) == [State.PENDING]


@pytest.mark.parametrize("kind", ["lost", "500_after"])
def test_an_answer_that_got_lost_bills_once(twin: Twin, acme: Partner, kind: str) -> None:
    provisioned(acme)
    entry = charge(acme)
    twin.world.faults = [Fault(kind, "meter_events")]
    assert syncing.sync().faults == 1
    assert states(acme) == [State.PENDING]
    assert syncing.sync() == syncing.Counts(), "the lane pauses"
    unpause()
    assert syncing.sync().accepted == 1
    assert at_twin(twin) == [str(entry.pk)]


def test_a_worker_killed_between_the_answer_and_our_mark_bills_once(
    twin: Twin, acme: Partner, monkeypatch: pytest.MonkeyPatch
) -> None:
    provisioned(acme)
    entry = charge(acme)

    class Killed(BaseException):
        pass

    def die(*args: Any) -> None:
        raise Killed

    with monkeypatch.context() as broken:
        broken.setattr(syncing, "_write", die)
        with pytest.raises(Killed):
            syncing.sync()
    assert at_twin(twin) == [str(entry.pk)]
    assert states(acme) == [State.PENDING]
    assert syncing.sync() == syncing.Counts(), "the dead worker's lease still stands"
    StripeLane.objects.update(lease_expires_at=timezone.now())
    assert syncing.sync().accepted == 1
    assert at_twin(twin) == [str(entry.pk)]


@pytest.mark.django_db(transaction=True)
def test_two_syncs_at_once_send_each_entry_once(twin: Twin, acme: Partner) -> None:
    provisioned(acme)
    twin.world.work_seconds = 0.002
    entries = [charge(acme, kind) for kind in ("grant", "warranty") for _ in range(15)]
    counts: list[syncing.Counts] = []
    threads = [threading.Thread(target=lambda: counts.append(syncing.sync())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    syncing.sync()
    assert sorted(at_twin(twin)) == sorted(str(entry.pk) for entry in entries)
    assert set(states(acme)) == {State.ACCEPTED}
    assert twin.world.violations == {}


def test_too_fast_waits_and_goes_on(twin: Twin, acme: Partner) -> None:
    provisioned(acme)
    charge(acme)
    twin.world.faults = [Fault("429", "meter_events")]
    assert syncing.sync().faults == 1
    lane = StripeLane.objects.get(item="grant")
    assert timezone.now() < lane.next_attempt_at < timezone.now() + dt.timedelta(seconds=60)
    unpause()
    assert syncing.sync().accepted == 1


def test_stripe_down_for_a_day_loses_nothing(twin: Twin, acme: Partner) -> None:
    provisioned(acme, starts_on=dt.date(2026, 11, 1))
    with time_machine.travel(dt.datetime(2026, 11, 10, 12, tzinfo=dt.UTC), tick=True) as clock:
        twin.world.faults = [Fault("outage", times=10_000)]
        entries = []
        for _ in range(6):
            entries.append(charge(acme))
            assert syncing.sync().accepted == 0
            clock.shift(dt.timedelta(hours=4))
        assert StripeLane.objects.get(item="grant").failures > 3
        twin.world.faults = []
        clock.shift(dt.timedelta(hours=1))
        assert syncing.sync().accepted == 6
    assert at_twin(twin) == [str(entry.pk) for entry in entries]
    assert StripeLane.objects.get(item="grant").failures == 0


def test_an_order_does_not_care(twin: Twin, api: Any, main_api: Any, order: Any) -> None:
    """Nothing that Stripe says or fails to say stops an order."""
    provisioned(api.partner)
    twin.world.faults = [Fault("outage", times=1000)]
    charge(api.partner)
    syncing.sync()
    assert api.post("/v2/deeds", order()).status_code == 202


def test_what_stripe_forgot_is_looked_up_before_it_is_sent_again(twin: Twin, acme: Partner) -> None:
    """After a day the identifier alone does not keep an event to one."""
    with time_machine.travel(dt.datetime(2026, 11, 10, 12, tzinfo=dt.UTC), tick=True) as clock:
        provisioned(acme)
        lost, never_there = charge(acme), charge(acme, "warranty")
        twin.world.faults = [Fault("lost", "meter_events"), Fault("outage", "meter_events")]
        syncing.sync()
        assert states(acme) == [State.PENDING, State.PENDING]
        assert len(at_twin(twin)) == 1
        clock.shift(dt.timedelta(hours=30))
        assert syncing.sync().accepted == 2
    assert sorted(at_twin(twin)) == sorted([str(lost.pk), str(never_there.pk)])


def test_what_is_older_than_35_days_is_rejected_without_asking(twin: Twin, acme: Partner) -> None:
    with time_machine.travel(dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC), tick=True) as clock:
        provisioned(acme)
        entry = charge(acme)
        clock.shift(dt.timedelta(days=35))
        assert syncing.sync().rejected == 1
    entry.refresh_from_db()
    assert entry.sync_error.startswith("too_old")
    assert at_twin(twin) == []


def test_staff_is_told_long_before(twin: Twin, acme: Partner) -> None:
    with time_machine.travel(dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC), tick=True) as clock:
        provisioned(acme)
        twin.world.faults = [Fault("outage", times=1000)]
        charge(acme)
        syncing.sync()
        assert list(alarms.ledger_unsynced()) == []
        clock.shift(dt.timedelta(days=3, minutes=1))
        (finding,) = alarms.ledger_unsynced()
        counted = {family.name: family.samples[0].value for family in alarms.unsynced_entries()}
    assert finding.summary.startswith(
        "1 ledger entries have not reached Stripe, the oldest for 3 days; 31 days"
    )
    assert "no_answer" in finding.summary
    assert counted["partner_api_stripe_unsynced_entries"] == 1
    assert counted["partner_api_stripe_oldest_unsynced_seconds"] > 3 * 86_400


def test_a_clock_ahead_of_stripes_waits(twin: Twin, acme: Partner) -> None:
    provisioned(acme)
    charge(acme)
    twin.world.offset_seconds = -400
    assert syncing.sync() == syncing.Counts()
    assert states(acme) == [State.PENDING]
    assert twin.world.violations.pop("timestamp_in_the_future") == 1
    twin.world.offset_seconds = 0
    unpause()
    assert syncing.sync().accepted == 1


def test_a_meter_that_was_archived_costs_no_entry(twin: Twin, acme: Partner) -> None:
    provisioned(acme)
    charge(acme)
    (meter,) = (one for one in twin.world.all("billing.meter") if one["event_name"] == "partner_api_grant")
    meter["status"] = "inactive"
    assert syncing.sync() == syncing.Counts(faults=1)
    assert states(acme) == [State.PENDING], "finance can mend it"
    assert "No active meter" in StripeLane.objects.get(item="grant").last_error
    meter["status"] = "active"
    unpause()
    assert syncing.sync() == syncing.Counts(accepted=1), "Stripe's first answer is not taken for today's"


def test_what_is_charged_for_later_is_not_sent_before(twin: Twin, acme: Partner) -> None:
    provisioned(acme)
    charge(acme)
    charge(acme, at=timezone.now() + dt.timedelta(minutes=30))
    assert syncing.sync() == syncing.Counts(accepted=1)
    assert states(acme) == [State.ACCEPTED, State.PENDING], "what came before is noted as sent"
    assert StripeLane.objects.get().next_attempt_at > timezone.now() + dt.timedelta(minutes=20)


def test_what_one_partner_is_owed_does_not_wait_on_anothers_draft(twin: Twin, acme: Partner) -> None:
    other = Partner.objects.create(name="Pacific Escrow")
    for partner in (acme, other):
        provisioned(partner)
        ledger.correct(partner, -500, reason="late", actor=ACTOR, source_id=f"c-{partner.name}")
    assert syncing.flush(acme.pk) == 0
    assert (states(acme), states(other)) == ([State.ACCEPTED], [State.PENDING])


def test_a_refused_entry_does_not_hold_up_the_others(twin: Twin, acme: Partner) -> None:
    contract = provisioned(acme)
    before = charge(acme, at=timezone.now())
    contract.stripe_subscription.starts_at = timezone.now() + dt.timedelta(seconds=1)
    contract.stripe_subscription.save()
    after = charge(acme, at=timezone.now() + dt.timedelta(seconds=2))
    counts = syncing.sync()
    assert (counts.accepted, counts.rejected) == (1, 1)
    assert at_twin(twin) == [str(after.pk)]
    before.refresh_from_db()
    assert before.sync_error.startswith("outside_subscription")


def test_corrections_become_invoice_items(twin: Twin, acme: Partner) -> None:
    provisioned(acme)
    credit = ledger.correct(acme, -500, reason="late delivery", actor=ACTOR, source_id="c-1")
    assert syncing.sync().accepted == 1
    assert syncing.sync().accepted == 0
    (item,) = twin.world.all("invoiceitem")
    assert (item["amount"], item["metadata"]["entry"]) == (-500, str(credit.pk))
    credit.refresh_from_db()
    assert credit.stripe_identifier == item["id"]


def test_a_customer_deleted_at_stripe_is_made_again_and_nothing_is_lost(twin: Twin, acme: Partner) -> None:
    contract = provisioned(acme)
    first = StripeCustomer.objects.get(partner=acme).customer_id
    twin.app.api.customers.delete({}, first)
    entry = charge(acme)
    assert syncing.sync().faults == 1
    assert states(acme) == [State.PENDING]
    provisioning.provision(contract, ACTOR)
    second = StripeCustomer.objects.get(partner=acme).customer_id
    assert second != first
    unpause()
    assert syncing.sync().accepted == 1
    assert [one.customer for lane in twin.app.meters.accepted.values() for one in lane] == [second]
    assert at_twin(twin) == [f"{entry.pk}:1"]


def test_a_wrong_key_stops_the_lane_and_not_the_ledger(twin: Twin, acme: Partner, settings: Any) -> None:
    provisioned(acme)
    settings.STRIPE_SECRET_KEY = "sk_test_wrong"
    charge(acme)
    assert syncing.sync().faults == 1
    assert StripeLane.objects.get().last_error.startswith("stripe_key_refused")
    assert states(acme) == [State.PENDING]


def test_a_late_charge_is_billed_with_its_own_period(acme: Partner) -> None:
    """Its deed was completed in a period that is closed: Stripe is told the first moment of the next."""
    with time_machine.travel(dt.datetime(2026, 11, 30, 23, 59, tzinfo=dt.UTC), tick=False):
        agree(acme, starts_on=dt.date(2026, 11, 1))
        period = charge(acme).period
    period.closed_at = period.ends_at
    period.save()
    late = charge(acme, at=dt.datetime(2026, 11, 30, 23, 58, tzinfo=dt.UTC))
    assert sending.timestamp_of(late) == dt.datetime(2026, 12, 1, tzinfo=dt.UTC)


@pytest.mark.django_db(transaction=True)
def test_two_thousand_entries_arrive_to_the_cent_through_every_fault(twin: Twin, settings: Any) -> None:
    settings.STRIPE_METER_EVENTS_PER_SECOND = 900
    partners = [Partner.objects.create(name=f"Partner {n}") for n in range(5)]
    for partner in partners:
        provisioned(partner)
    kinds = ("grant", "warranty", "interspousal")
    template = [charge(partner, kind) for partner in partners for kind in kinds]
    many = []
    for number in range(2000 - len(template)):
        like = template[number % len(template)]
        copy = LedgerEntry(
            **{f.attname: getattr(like, f.attname) for f in LedgerEntry._meta.fields if f.name != "id"}
        )
        copy.source_id = f"copy-{number}"
        many.append(copy)
    LedgerEntry.objects.bulk_create(many)
    twin.world.faults = [
        Fault("lost", "meter_events", times=15, chance=0.01),
        Fault("500_after", "meter_events", times=15, chance=0.01),
        Fault("429", "meter_events", times=15, chance=0.01),
        Fault("outage", "meter_events", times=10, chance=0.01),
        Fault("late", "meter_events", times=10, chance=0.01, seconds=0.1),
    ]
    for _ in range(60):
        syncing.sync()
        unpause()
        if not LedgerEntry.objects.pending().exists():
            break
    assert LedgerEntry.objects.filter(sync_state=State.ACCEPTED).count() == 2000
    assert twin_sum(twin) == 2000
    assert twin.world.faults == []
    for partner in partners:
        own = twin_sum_by_type(twin, partner)
        cents = {kind: Decimal(1250) if kind == "grant" else Decimal("999.5") for kind in kinds}
        for kind in kinds:
            entries = partner.ledger_entries.filter(deed_type=kind)
            assert own[kind] * cents[kind] == sum(entry.amount for entry in entries)
    assert twin.world.violations == {}


def test_the_lanes_rest_leaves_no_lease(twin: Twin, acme: Partner) -> None:
    provisioned(acme)
    charge(acme)
    syncing.sync()
    assert list(StripeLane.objects.values_list("lease", "last_error")) == [(None, "")]
    assert stripe_client.is_livemode() is False
