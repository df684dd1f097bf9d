"""The books, compared three ways: clean when they agree, and each difference by its name."""

import datetime as dt
import io
import json
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from billing import alarms, invoice_mirror, ledger, provisioning, reconciling, stripe_events, syncing
from billing.models import (
    InvoiceLine,
    LedgerEntry,
    ReconciliationRun,
    StripeCustomer,
    StripeLane,
)
from deeds.models import Deed
from keys import audit
from keys.models import AuditEntry, Partner
from partner_api.local.stripe_twin.metering import Accepted
from partner_api.local.stripe_twin.server import Twin
from partner_api.local.stripe_twin.world import Fault
from tests.billing.books import ACTOR, deed, provisioned, uncharged
from tests.staff import hire, log_in

NOW = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
LATER = dt.timedelta(minutes=11)


@pytest.fixture
def clock() -> Iterator[Any]:
    with time_machine.travel(NOW, tick=True) as moved:
        yield moved


@pytest.fixture
def books(twin: Twin, acme: Partner, clock: Any) -> Twin:
    """Three deeds, charged and sent, and settled."""
    provisioned(acme, base_fee=Decimal(50), model="hybrid")
    for kind in ("grant", "grant", "warranty"):
        deed(acme, kind)
    syncing.sync()
    clock.shift(LATER)
    return twin


def reconcile(*arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and what was printed."""
    out = io.StringIO()
    try:
        call_command("reconcile", "--json", *arguments, stdout=out)
    except SystemExit as ended:
        return int(str(ended.code)), json.loads(out.getvalue())
    return 0, json.loads(out.getvalue())


def counts(*arguments: str) -> dict[str, int]:
    code, facts = reconcile(*arguments)
    assert code == (1 if facts["counts"] else 0)
    found: dict[str, int] = facts["counts"]
    return found


def end_of_month(twin: Twin, clock: Any) -> None:
    ended = dt.datetime(2026, 12, 1, 0, 5, tzinfo=dt.UTC)
    clock.move_to(ended)
    twin.app.billing.advance(int(ended.timestamp()))
    hear(twin)


def hear(twin: Twin) -> None:
    for delivery in twin.webhooks.take():
        stripe_events.receive(delivery.body, delivery.signature)
    stripe_events.process_waiting()


def by_force(statement: str, *values: Any) -> None:
    """What the triggers refuse: somebody with the rights of a superuser."""
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(statement, values)
        cursor.execute("SET session_replication_role = DEFAULT")


def test_it_works(books: Twin) -> None:
    assert reconcile()[0] == 0
    out = io.StringIO()
    call_command("reconcile", stdout=out)
    assert "0 variances" in out.getvalue()
    assert ReconciliationRun.objects.filter(counts={}).count() == 2


def test_a_whole_month_with_its_invoice_is_clean(books: Twin, clock: Any) -> None:
    end_of_month(books, clock)
    assert invoice_mirror.release_held() == 0
    hear(books)
    clock.shift(LATER)
    assert counts() == {}


def test_missing_charge(books: Twin) -> None:
    """The triggers don't let an entry go; here it does, with a superuser's rights."""
    entry = LedgerEntry.objects.order_by("id")[0]
    by_force("DELETE FROM ledger_entries WHERE id = %s", entry.pk)
    assert counts() == {"missing_charge": 1, "meter_excess": 1}


def test_double_charge(books: Twin, acme: Partner, clock: Any) -> None:
    """The constraint refuses the same source; this one is spelled differently."""
    like = LedgerEntry.objects.order_by("id")[0]
    fields = {field.attname: getattr(like, field.attname) for field in LedgerEntry._meta.fields}
    twice = {"id": LedgerEntry().pk, "source_id": like.source_id.upper(), "sync_state": "not_billable"}
    LedgerEntry.objects.create(**{**fields, **twice})
    assert counts() == {"double_charge": 1}


def test_orphan_charge(books: Twin) -> None:
    lost = Deed.objects.order_by("id")[0]
    by_force("DELETE FROM external_deeds WHERE id = %s", lost.pk)
    assert counts() == {"orphan_charge": 1}


def test_unsynced_is_found_and_repaired(books: Twin, acme: Partner, clock: Any) -> None:
    books.world.faults = [Fault("outage", "meter_events")]
    deed(acme)
    syncing.sync()
    assert counts() == {}, "it is young"
    clock.shift(LATER)
    code, facts = reconcile()
    assert (code, facts["counts"]) == (1, {"unsynced": 1})
    assert facts["variances"][0]["detail"].startswith("no_answer")
    code, facts = reconcile("--repair")
    assert (code, facts["repaired"]) == (0, 1)


def test_what_stripe_lost_is_unsynced(books: Twin, acme: Partner) -> None:
    """We have its answer, and it does not count the event."""
    lane = next(lane for lane in books.app.meters.accepted.values() if len(lane) == 2)
    lane.pop()
    code, facts = reconcile()
    assert (code, facts["counts"]) == (1, {"unsynced": 1})
    assert facts["variances"][0]["detail"] == "Stripe counts 1 of 2 grant sent"
    assert facts["variances"][0]["repair"] == "look", "nothing of ours would change what Stripe counts"


def test_what_is_settling_at_stripe_is_no_variance(books: Twin, acme: Partner, clock: Any) -> None:
    books.world.lag_seconds = 3600
    deed(acme)
    syncing.sync()
    assert counts() == {"unsynced": 1}, "warranty alone: nothing was sent for it lately"
    clock.shift(LATER)
    assert counts() == {"unsynced": 2}
    books.world.lag_seconds = 0
    assert counts() == {}


def test_an_event_of_somebody_elses_is_too_much(books: Twin) -> None:
    customer = StripeCustomer.objects.get().customer_id
    lane = books.app.meters.accepted[customer, "partner_api_grant"]
    lane.append(
        Accepted("by-hand", customer, "partner_api_grant", Decimal(1), int(NOW.timestamp()), time.monotonic())
    )
    assert counts() == {"meter_excess": 1}


def test_an_event_of_a_meter_that_nothing_was_sent_to_is_too_much(twin: Twin, acme: Partner) -> None:
    provisioned(acme)
    customer = StripeCustomer.objects.get().customer_id
    lane = twin.app.meters.accepted[customer, "partner_api_grant"]
    at = int(timezone.now().timestamp())
    lane.append(Accepted("by-hand", customer, "partner_api_grant", Decimal(1), at, time.monotonic()))
    assert counts() == {"meter_excess": 1}


def test_sync_rejected_is_found_and_billed_as_an_item(books: Twin, acme: Partner, clock: Any) -> None:
    books.world.faults = [Fault("outage", "meter_events", times=100)]
    entry = deed(acme)
    clock.shift(dt.timedelta(days=34, hours=23, minutes=30))
    books.world.faults = []
    assert syncing.sync().rejected == 1
    clock.shift(dt.timedelta(days=40))
    assert counts() == {"sync_rejected": 1}, "it is older than the time that is looked at"
    code, facts = reconcile("--repair")
    assert (code, facts["repaired"]) == (0, 1)
    (item,) = books.world.all("invoiceitem")
    assert (item["amount"], item["metadata"]["entry"]) == (1250, str(entry.pk))
    assert reconcile("--repair")[1]["repaired"] == 0
    assert len(books.world.all("invoiceitem")) == 1


def test_late_event_is_found_and_billed_as_an_item(books: Twin, acme: Partner, clock: Any) -> None:
    """Stripe took it, after the invoice that it belongs to was final."""
    entry = deed(acme)
    for hours, minutes in ((0, 5), (1, 30)):
        moment = dt.datetime(2026, 12, 1, hours, minutes, tzinfo=dt.UTC)
        clock.move_to(moment)
        books.app.billing.advance(int(moment.timestamp()))
    clock.shift(dt.timedelta(seconds=5))
    syncing.sync()
    hear(books)
    clock.shift(LATER)
    code, facts = reconcile()
    assert (code, facts["counts"]) == (1, {"late_event": 1})
    assert facts["variances"][0]["subject"] == str(entry.pk)
    assert [one.identifier for one in books.app.meters.late] == [str(entry.pk)]
    assert reconcile("--repair")[0] == 0
    assert [item["amount"] for item in books.world.all("invoiceitem")] == [1250]


def test_price_mismatch(books: Twin, clock: Any, quick_passwords: None) -> None:
    for price in books.world.all("price"):
        if price["nickname"] == "Grant deeds":
            price["unit_amount_decimal"] = "1100"
    end_of_month(books, clock)
    invoice_mirror.release_held()
    clock.shift(LATER)
    code, facts = reconcile()
    assert (code, facts["counts"]) == (1, {"price_mismatch": 1})
    assert facts["variances"][0]["detail"] == "2 grant cost 2500, the invoice has 2200"
    assert facts["variances"][0]["repair"] == "look"
    staff, page = log_in(hire("ann", "finance")), "/admin/billing/ledgerentry/reconcile/"
    assert "the invoice has 2200" in staff.get(page).content.decode()
    variance = f"price_mismatch:{facts['variances'][0]['subject']}"
    answer = staff.post(f"{page}repair/?variance={variance}", {"reason": "x"}, follow=True)
    assert "it needs a decision" in answer.content.decode()
    assert not LedgerEntry.objects.filter(kind__in=["credit_note", "adjustment"]).exists()


def test_staff_compare_while_stripe_is_away(
    books: Twin, acme: Partner, clock: Any, quick_passwords: None
) -> None:
    deed(acme)
    syncing.sync()
    books.world.faults = [Fault("outage", times=100)]
    clock.shift(LATER)
    answer = log_in(hire("ann", "finance")).get("/admin/billing/ledgerentry/reconcile/", follow=True)
    assert answer.status_code == 200
    assert "Stripe" in answer.content.decode()


def test_invoice_quantity_mismatch(books: Twin, clock: Any) -> None:
    """Somebody took a deed off the invoice at Stripe."""
    end_of_month(books, clock)
    invoice_mirror.release_held()
    line = InvoiceLine.objects.get(item="grant", invoice__origin="stripe")
    InvoiceLine.objects.filter(pk=line.pk).update(quantity=1, amount=1250)
    clock.shift(LATER)
    code, facts = reconcile()
    assert (code, facts["counts"]) == (1, {"invoice_quantity_mismatch": 1})
    assert facts["variances"][0]["detail"] == "grant: the invoice has 1, the ledger sent 2"


def test_a_line_that_is_missing_is_missed(books: Twin, clock: Any) -> None:
    end_of_month(books, clock)
    invoice_mirror.release_held()
    InvoiceLine.objects.filter(item__in=["grant", "base_fee"], invoice__origin="stripe").delete()
    clock.shift(LATER)
    details = {one["detail"] for one in reconcile()[1]["variances"]}
    assert details == {
        "grant: the invoice has 0, the ledger sent 2",
        "the base fee of the next period is 5000, the invoice has 0",
    }


def test_another_base_fee_than_agreed_is_a_price_mismatch(books: Twin, clock: Any) -> None:
    end_of_month(books, clock)
    invoice_mirror.release_held()
    of_cycle = InvoiceLine.objects.filter(invoice__at_stripe__billing_reason="subscription_cycle")
    line = of_cycle.get(item="base_fee")
    InvoiceLine.objects.filter(pk=line.pk).update(amount=2500)
    clock.shift(LATER)
    (found,) = reconcile()[1]["variances"]
    assert (found["kind"], found["repair"]) == ("price_mismatch", "look")
    assert found["detail"] == "the base fee of the next period is 5000, the invoice has 2500"


def test_another_sum_than_that_of_our_charges_is_a_price_mismatch(books: Twin, clock: Any) -> None:
    """The quantities agree, and Stripe's price is right: we charged at another."""
    by_force("UPDATE ledger_entries SET unit_price = 10, amount = 1000 WHERE item = %s", "grant")
    end_of_month(books, clock)
    invoice_mirror.release_held()
    clock.shift(LATER)
    details = [one["detail"] for one in reconcile()[1]["variances"]]
    assert "2 grant are 2000 in the ledger, the invoice has 2500" in details


def test_one_partner_alone(books: Twin, clock: Any) -> None:
    other = Partner.objects.create(name="Pacific Escrow")
    provisioned(other)
    books.world.faults = [Fault("outage", "meter_events")]
    deed(other)
    syncing.sync()
    clock.shift(LATER)
    assert counts("--partner", "Acme Title") == {}
    assert counts("--partner", str(other.pk)) == {"unsynced": 1}
    assert counts("--from", "2026-11-01", "--to", "2026-11-19") == {}


def variances_shown() -> dict[str, float]:
    (family,) = alarms.variances()
    return {sample.labels["kind"]: sample.value for sample in family.samples if sample.value}


def test_when_stripe_can_not_be_asked_nothing_is_clean(books: Twin, acme: Partner) -> None:
    """What needs no Stripe is compared, and the metric stays what it was when all was compared."""
    uncharged(acme)
    assert counts() == {"missing_charge": 1}
    assert variances_shown() == {"missing_charge": 1}
    uncharged(acme)
    books.world.faults = [Fault("outage", times=100)]
    code, facts = reconcile()
    assert (code, facts["counts"]) == (1, {"missing_charge": 2})
    assert facts["error"].startswith("Stripe could not be asked")
    assert variances_shown() == {"missing_charge": 1}


def test_the_comparison_of_one_partner_is_not_that_of_all(books: Twin, acme: Partner) -> None:
    uncharged(acme)
    counts()
    Partner.objects.create(name="Pacific Escrow")
    assert counts("--partner", "Pacific Escrow") == {}
    assert counts("--from", "2026-11-01", "--to", "2026-11-02") == {}
    assert variances_shown() == {"missing_charge": 1}


def test_without_stripe_the_deeds_are_still_compared(acme: Partner, settings: Any) -> None:
    settings.STRIPE_SECRET_KEY = ""
    deed(acme)
    assert counts() == {}


@pytest.mark.parametrize(
    "arguments", [("--from", "2026-11-20", "--to", "2026-11-19"), ("--partner", "Nobody"), ("--from", "soon")]
)
def test_wrong_arguments_are_named(db: None, arguments: tuple[str, str]) -> None:
    with pytest.raises(CommandError):
        call_command("reconcile", *arguments)


def test_the_night_tells_staff(books: Twin, acme: Partner, clock: Any) -> None:
    reconciling.nightly()
    assert list(alarms.books_disagree()) == []
    books.world.faults = [Fault("outage", "meter_events")]
    deed(acme)
    syncing.sync()
    clock.shift(LATER)
    run = reconciling.nightly()
    (finding,) = alarms.books_disagree()
    assert "1 unsynced" in finding.summary
    assert f"/reconciliationrun/{run.pk}/" in finding.summary
    books.world.faults = [Fault("outage", times=100)]
    reconciling.nightly()
    (finding,) = alarms.books_disagree()
    assert "Stripe could not be asked" in finding.summary


def test_finance_sees_each_difference_in_the_admin(
    books: Twin, acme: Partner, clock: Any, staff: Client
) -> None:
    books.world.faults = [Fault("outage", "meter_events")]
    entry = deed(acme)
    syncing.sync()
    clock.shift(LATER)
    run = reconciling.nightly()
    assert staff.get("/admin/billing/reconciliationrun/").status_code == 200
    page = staff.get(f"/admin/billing/reconciliationrun/{run.pk}/change/").content.decode()
    assert "unsynced" in page
    assert str(entry.pk) in page
    for act in ("compare_now", "repair_now"):
        assert staff.get(f"/admin/billing/reconciliationrun/{act}/").status_code == 200
    url = "/admin/billing/reconciliationrun/repair_now/"
    assert staff.post(url, {"reason": ""}).status_code == 200
    assert ReconciliationRun.objects.get() == run, "opening a page compares nothing"
    books.world.faults = []
    StripeLane.objects.update(next_attempt_at=timezone.now())
    assert staff.post(url, {"reason": "as told"}).status_code == 302
    repairing = ReconciliationRun.objects.latest("started_at")
    assert (repairing.total, repairing.repaired) == (0, 1)
    ordered = AuditEntry.objects.get(action="reconciliation.repair_ordered")
    assert (ordered.actor, ordered.target_id, ordered.reason) == ("root", str(repairing.pk), "as told")
    for page in ("stripelane", "stripeinvoice", "stripesubscription"):
        assert staff.get(f"/admin/billing/{page}/").status_code == 200
    assert staff.get("/admin/billing/stripeevent/").status_code == 200
    assert staff.get("/admin/billing/stripecustomer/").status_code == 200


def test_a_customer_made_anew_owes_what_the_first_one_was_not_billed(
    books: Twin, acme: Partner, clock: Any
) -> None:
    contract = acme.contracts.get()
    books.app.api.customers.delete({}, StripeCustomer.objects.get().customer_id)
    deed(acme)
    syncing.sync()
    provisioning.provision(contract, ACTOR)
    StripeLane.objects.update(next_attempt_at=timezone.now())
    assert syncing.sync().accepted == 4
    clock.shift(LATER)
    assert counts() == {}


def test_a_correction_is_not_taken_for_usage(books: Twin, acme: Partner, clock: Any) -> None:
    ledger.correct(acme, -100, reason="late", actor=audit.Actor.command("test"), source_id="x")
    syncing.sync()
    clock.shift(LATER)
    assert counts() == {}
