"""Stripe's news that is odd, stale or of something gone: it is read right, and holds nothing else up."""

import datetime as dt
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import time_machine
from django.db import IntegrityError, connection
from django.test import Client
from django.utils import timezone

from billing import invoice_mirror, invoicing, ledger, signals, stripe_events, subscribing, syncing, tasks
from billing.models import (
    Invoice,
    LedgerEntry,
    StripeCustomer,
    StripeEvent,
    StripeInvoice,
    StripeLane,
    StripeSubscription,
)
from billing.stripe_client import customers, invoices, subscriptions
from keys.models import Partner
from partner_api.local.stripe_twin.server import Twin
from partner_api.local.stripe_twin.world import Fault
from partner_api.ops.health import own_connection
from tests.billing.books import ACTOR, agree, charge, provisioned
from tests.billing.test_stripe_webhooks import deliver, end_of_month, post, some_event

NOW = dt.datetime(2026, 11, 10, 12, tzinfo=dt.UTC)
State = StripeEvent.State


@pytest.fixture
def clock() -> Iterator[Any]:
    with time_machine.travel(NOW, tick=True) as moved:
        yield moved


def draft_of(twin: Twin) -> dict[str, Any]:
    (draft,) = (one for one in twin.world.all("invoice") if one["status"] == "draft")
    return draft


def drafted(twin: Twin, clock: Any) -> dict[str, Any]:
    end_of_month(twin, clock)
    deliver(twin)
    return draft_of(twin)


def test_a_card_that_was_taken_away_is_shown_no_more(twin: Twin, acme: Partner) -> None:
    """The news names no customer, except as what changed."""
    provisioned(acme)
    card = twin.app.api.customers.attach(twin.world.all("customer")[0], "pm_card_visa")
    deliver(twin)
    assert StripeCustomer.objects.get().has_payment_method
    twin.app.api.customers.detach(card)
    deliver(twin)
    assert not StripeCustomer.objects.get().has_payment_method


@pytest.mark.parametrize(
    ("kind", "details", "shown"),
    [
        ("us_bank_account", {"bank_name": "First Bank", "last4": "6789"}, "us_bank_account •••• 6789"),
        ("link", {"email": "ap@acme.example"}, "link"),
    ],
)
def test_a_payment_method_that_is_no_card_is_one(
    twin: Twin, acme: Partner, staff: Client, kind: str, details: dict[str, str], shown: str
) -> None:
    """Stripe gives it no member `card` at all."""
    provisioned(acme)
    method = twin.app.api.customers.attach(twin.world.all("customer")[0], "pm_card_visa")
    del method["card"]
    method |= {"type": kind, kind: details}
    deliver(twin)
    assert not StripeEvent.objects.filter(state=State.WAITING).exists()
    assert StripeCustomer.objects.get().has_payment_method
    page = staff.get("/admin/billing/stripecustomer/").content.decode()
    assert f">{shown}<" in page


def test_news_of_a_payment_method_that_never_was_a_customers_is_ignored(twin: Twin, acme: Partner) -> None:
    provisioned(acme)
    event = some_event(twin, "payment_method.updated", data={"object": {"id": "pm_1", "customer": None}})
    post(twin.webhooks.sign(event))
    stripe_events.process_waiting()
    assert StripeEvent.objects.get().state == State.IGNORED


def test_an_event_that_breaks_us_does_not_block_the_others(
    twin: Twin, acme: Partner, monkeypatch: pytest.MonkeyPatch
) -> None:
    provisioned(acme)
    card = twin.app.api.customers.attach(twin.world.all("customer")[0], "pm_card_visa")
    twin.world.events.clear()
    odd = some_event(twin, "customer.subscription.updated")
    post(twin.webhooks.sign(odd))
    post(twin.webhooks.sign({**some_event(twin), "created": odd["created"] + 1}))

    def breaks(subscription: StripeSubscription) -> None:
        raise KeyError(subscription.subscription_id)

    monkeypatch.setattr(subscribing, "refresh", breaks)
    assert stripe_events.process_waiting() == 2
    assert StripeCustomer.objects.get().card_last4 == card["card"]["last4"]
    waiting = StripeEvent.objects.get(state=State.WAITING)
    assert (waiting.event_id, waiting.attempts) == (odd["id"], 1)
    assert waiting.note.startswith("KeyError")
    assert waiting.next_attempt_at > timezone.now()


def test_one_that_is_cancelled_today_ends_today_whatever_was_planned(
    twin: Twin, acme: Partner, clock: Any
) -> None:
    provisioned(acme, ends_on=dt.date(2026, 11, 20))
    twin.app.api.subscriptions.cancel({}, twin.world.all("subscription")[0]["id"])
    deliver(twin)
    ends_at = StripeSubscription.objects.get().ends_at
    assert ends_at is not None
    assert NOW <= ends_at < NOW + dt.timedelta(minutes=1), "the clock goes on meanwhile"


def test_what_was_read_before_it_was_changed_changes_nothing_back(
    twin: Twin, acme: Partner, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    provisioned(acme)
    agree(acme, starts_on=dt.date(2026, 11, 20))
    twin.world.announce("customer.subscription.updated", twin.world.all("subscription")[0])
    read = subscriptions.read

    def overtaken(subscription_id: str) -> Any:
        found = read(subscription_id)
        clock.shift(dt.timedelta(seconds=1))
        tasks.provision_due()
        return found

    with monkeypatch.context() as slow:
        slow.setattr(subscriptions, "read", overtaken)
        deliver_once(twin)
    assert StripeSubscription.objects.get().ends_at == dt.datetime(2026, 11, 20, tzinfo=dt.UTC)


def deliver_once(twin: Twin) -> None:
    for delivery in twin.webhooks.take():
        post(delivery)
    stripe_events.process_waiting()


def test_a_card_that_was_read_before_it_was_changed_is_not_shown_again(
    twin: Twin, acme: Partner, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    provisioned(acme)
    customer = twin.world.all("customer")[0]
    twin.app.api.customers.attach(customer, "pm_card_visa", last4="1111")
    read = customers.read

    def overtaken(customer_id: str) -> Any:
        found = read(customer_id)
        monkeypatch.setattr(customers, "read", read)
        twin.app.api.customers.attach(customer, "pm_card_visa", last4="2222")
        clock.shift(dt.timedelta(seconds=1))
        stripe_events.refresh_customer(customer_id)
        return found

    monkeypatch.setattr(customers, "read", overtaken)
    stripe_events.refresh_customer(customer["id"])
    assert StripeCustomer.objects.get().card_last4 == "2222"


def test_one_worker_acts_on_events_and_a_hint_waits_for_it(twin: Twin, acme: Partner) -> None:
    provisioned(acme)
    event = some_event(twin)
    post(twin.webhooks.sign(event))
    with own_connection() as other:
        other.execute("SELECT pg_advisory_lock(%s, 0)", [tasks._FOLLOWING])
        tasks.process_stripe_event(event["id"])
        assert StripeEvent.objects.get().state == State.WAITING
        other.execute("SELECT pg_advisory_unlock(%s, 0)", [tasks._FOLLOWING])
    tasks.process_stripe_event(event["id"])
    assert StripeEvent.objects.get().state == State.DONE


@pytest.mark.django_db(transaction=True)
def test_the_first_two_looks_at_an_invoice_tell_its_news_once(
    twin: Twin, acme: Partner, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are read before there is a row; the one that was read first must not be written over the other."""
    provisioned(acme)
    charge(acme)
    syncing.sync()
    end_of_month(twin, clock)
    invoice = twin.app.billing.finalize(draft_of(twin))
    told: list[str] = []
    both_have_read = threading.Barrier(2, timeout=10)
    meeting = threading.Barrier(2)
    read = invoices.read

    def reads(invoice_id: str) -> Any:
        if threading.current_thread().name == "second":
            twin.app.billing.pay(invoice)
        found = read(invoice_id)
        both_have_read.wait()
        return found

    def hears(invoice: Invoice, **_: Any) -> None:
        told.append(invoice.status)
        try:
            # Whoever else is as far as this comes; with one at a time nobody does.
            meeting.wait(timeout=0.5)
        except threading.BrokenBarrierError:
            pass

    def mirrors() -> None:
        try:
            invoice_mirror.mirror(invoice["id"])
        finally:
            connection.close()

    monkeypatch.setattr(invoices, "read", reads)
    signals.invoice_finalized.connect(hears)
    try:
        threads = [threading.Thread(target=mirrors, name=name) for name in ("first", "second")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        signals.invoice_finalized.disconnect(hears)
    assert len(told) == 1
    assert Invoice.objects.get(stripe_invoice_id=invoice["id"]).status == "paid"


@pytest.mark.parametrize("hears", [True, False], ids=["with its event", "at the next look"])
def test_a_draft_deleted_at_stripe_holds_nothing(twin: Twin, acme: Partner, clock: Any, hears: bool) -> None:
    provisioned(acme)
    charge(acme)
    draft = drafted(twin, clock)
    credit = ledger.correct(acme, -250, reason="late delivery", actor=ACTOR, source_id="c-1")
    twin.app.api.delete_invoice({}, draft["id"])
    if hears:
        deliver(twin)
    assert invoice_mirror.release_held() == 0
    gone = Invoice.objects.get(stripe_invoice_id=draft["id"])
    assert (gone.status, gone.at_stripe.is_held) == ("void", False)
    syncing.sync()
    credit.refresh_from_db()
    assert credit.sync_state == LedgerEntry.SyncState.ACCEPTED
    assert twin.world.all("invoiceitem")[0]["invoice"] is None, "the next invoice has it"


def test_a_draft_that_was_taken_for_deleted_comes_back(twin: Twin, acme: Partner, clock: Any) -> None:
    """Such as under the key of another account."""
    provisioned(acme)
    charge(acme)
    draft = drafted(twin, clock)
    twin.world.remove(draft)
    assert invoice_mirror.release_held() == 0
    twin.world.put(draft)
    invoice_mirror.mirror(draft["id"])
    assert invoice_mirror.release_held() == 0
    assert Invoice.objects.get(stripe_invoice_id=draft["id"]).status == "open"


def test_a_draft_that_lost_a_line_is_not_let_go(twin: Twin, acme: Partner, clock: Any) -> None:
    """Somebody took an item off the subscription at Stripe: nothing counts its usage."""
    provisioned(acme)
    charge(acme)
    charge(acme, "warranty")
    subscription = twin.world.all("subscription")[0]
    items = subscription["items"]["data"]
    subscription["items"]["data"] = [one for one in items if one["price"]["unit_amount_decimal"] != "1250"]
    drafted(twin, clock)
    assert invoice_mirror.release_held() == 1
    assert StripeInvoice.objects.get(is_held=True).note == "Stripe has not counted all: grant 0 of 1"


@pytest.mark.parametrize("kind", ["500", "500_after"])
def test_a_5xx_when_a_draft_is_let_go_does_not_last_a_day(
    twin: Twin, acme: Partner, clock: Any, kind: str
) -> None:
    provisioned(acme)
    charge(acme)
    draft = drafted(twin, clock)
    twin.world.faults = [Fault(kind, "finalize", method="POST")]
    assert invoice_mirror.release_held() == 1
    assert StripeInvoice.objects.get(is_held=True).note.startswith("status_500")
    assert invoice_mirror.release_held() == 0
    assert (draft["status"], Invoice.objects.get(stripe_invoice_id=draft["id"]).status) == ("open", "open")


@pytest.mark.parametrize("kind", ["500", "500_after"])
def test_a_5xx_when_a_draft_is_held_does_not_last_a_day(
    twin: Twin, acme: Partner, clock: Any, kind: str
) -> None:
    provisioned(acme)
    charge(acme)
    end_of_month(twin, clock)
    twin.world.faults = [Fault(kind, "invoices/", method="POST")]
    deliver_once(twin)
    StripeEvent.objects.update(next_attempt_at=timezone.now())
    stripe_events.process_waiting()
    assert draft_of(twin)["auto_advance"] is False
    assert StripeInvoice.objects.filter(is_held=True).count() == 1


@pytest.mark.parametrize(("kind", "total"), [("500", 1250), ("500_after", 1000)])
def test_a_5xx_on_a_correction_makes_one_item(
    twin: Twin, acme: Partner, clock: Any, kind: str, total: int
) -> None:
    """On the draft, if it was done; else on the next invoice."""
    provisioned(acme)
    charge(acme)
    clock.move_to(dt.datetime(2026, 11, 30, 23, 59, tzinfo=dt.UTC))
    credit = ledger.correct(acme, -250, reason="late delivery", actor=ACTOR, source_id="c-1")
    drafted(twin, clock)
    twin.world.faults = [Fault(kind, "invoiceitems", method="POST")]
    assert invoice_mirror.release_held() == 0
    # A call that a 5xx answered may still be about to make it: it is looked for once that is over.
    clock.shift(dt.timedelta(minutes=2))
    StripeLane.objects.update(next_attempt_at=timezone.now())
    assert syncing.sync().accepted == 1
    # The next invoice's item is asked for under the key of the draft's: refused, unless that one never came.
    twin.world.violations.pop("idempotency_key_reused", None)
    (item,) = twin.world.all("invoiceitem")
    credit.refresh_from_db()
    assert (item["amount"], credit.stripe_identifier) == (-250, item["id"])
    assert Invoice.objects.get(status="open").total == total


def test_one_invoice_that_can_not_be_closed_does_not_hold_the_others(
    twin: Twin, acme: Partner, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    provisioned(acme)
    charge(acme)
    other = Partner.objects.create(name="Other Title")
    provisioned(other)
    charge(other)
    end_of_month(twin, clock)
    deliver(twin)
    close = invoicing.close

    def breaks(period: Any) -> Any:
        if period.partner_id == acme.pk:
            raise IntegrityError("a value out of bounds")
        return close(period)

    monkeypatch.setattr(invoicing, "close", breaks)
    assert invoice_mirror.release_held() == 1
    assert Invoice.objects.get(partner=other, origin="stripe").status == "open"
