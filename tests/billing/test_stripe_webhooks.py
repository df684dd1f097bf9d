"""Stripe's news: believed when signed, stored before acted on, right in any order."""

import datetime as dt
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.test import Client
from django.utils import timezone

from billing import invoice_mirror, ledger, retention, signals, stripe_events, syncing
from billing.models import Invoice, LedgerEntry, StripeCustomer, StripeEvent, StripeInvoice, StripeLane
from keys.models import Partner
from partner_api.local.stripe_twin.customers import DECLINED
from partner_api.local.stripe_twin.deliveries import Delivery
from partner_api.local.stripe_twin.server import Twin
from partner_api.local.stripe_twin.world import Fault
from tests.api import Api
from tests.billing.books import ACTOR, at_twin, charge, provisioned

NOW = dt.datetime(2026, 11, 10, 12, tzinfo=dt.UTC)
ENDED = dt.datetime(2026, 12, 1, 0, 5, tzinfo=dt.UTC)
State = StripeEvent.State


@pytest.fixture
def clock() -> Iterator[Any]:
    with time_machine.travel(NOW, tick=True) as moved:
        yield moved


@pytest.fixture
def news() -> Iterator[list[tuple[str, Invoice]]]:
    """What the other apps were told, each within a transaction."""
    told: list[tuple[str, Invoice]] = []
    receivers = []
    for name in ("invoice_finalized", "invoice_paid", "invoice_payment_failed"):

        def receive(invoice: Invoice, _name: str = name, **_: Any) -> None:
            assert connection.in_atomic_block
            told.append((_name, invoice))

        getattr(signals, name).connect(receive)
        receivers.append((name, receive))
    yield told
    for name, receiver in receivers:
        getattr(signals, name).disconnect(receiver)


def post(delivery: Delivery) -> Any:
    return Client(raise_request_exception=False).post(
        "/webhooks/stripe",
        delivery.body,
        content_type="application/json",
        headers={"Stripe-Signature": delivery.signature},
    )


def deliver(twin: Twin) -> None:
    """All that Stripe has to say, and what the workers do about it, until it is quiet."""
    while deliveries := twin.webhooks.take():
        for delivery in deliveries:
            assert post(delivery).status_code == 200
        StripeEvent.objects.update(next_attempt_at=timezone.now())
        stripe_events.process_waiting()


def end_of_month(twin: Twin, clock: Any) -> None:
    clock.move_to(ENDED)
    twin.app.billing.advance(int(ENDED.timestamp()))


def unpause() -> None:
    StripeLane.objects.update(next_attempt_at=timezone.now())


def test_it_works(twin: Twin, acme: Partner, clock: Any, news: list[Any]) -> None:
    provisioned(acme)
    deliver(twin)
    for _ in range(3):
        charge(acme)
    end_of_month(twin, clock)
    deliver(twin)
    (invoice,) = Invoice.objects.filter(origin="stripe", status="draft")
    assert not invoice.is_sent
    assert invoice_mirror.release_held() == 0
    deliver(twin)
    invoice.refresh_from_db()
    assert (invoice.status, invoice.total, invoice.is_sent) == ("open", 3750, True)
    assert invoice.hosted_invoice_url.startswith("https://invoice.stripe.com/")
    assert invoice.period is not None
    assert invoice.period.starts_at == dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
    lines = {line.item: (line.quantity, line.amount) for line in invoice.lines.all()}
    assert lines == {"grant": (3, 3750), "deed": (0, 0)}
    twin.app.billing.pay(twin.world.objects[invoice.stripe_invoice_id])
    deliver(twin)
    invoice.refresh_from_db()
    assert (invoice.status, invoice.amount_paid, invoice.amount_due) == ("paid", 3750, 0)
    own = [name for name, told in news if told.pk == invoice.pk]
    assert own == ["invoice_finalized", "invoice_paid"]
    assert twin.app.meters.late == []


def test_any_order_and_any_number_of_times_end_alike(
    twin: Twin, acme: Partner, clock: Any, news: list[Any]
) -> None:
    """Everything from the draft to the payment happened before the first event came, backwards, twice."""
    provisioned(acme, base_fee=100)
    charge(acme)
    syncing.sync()
    end_of_month(twin, clock)
    (draft,) = [one for one in twin.world.all("invoice") if one["status"] == "draft"]
    twin.app.billing.pay(twin.app.billing.finalize(draft))
    deliveries = twin.webhooks.take()
    ordered = sorted(deliveries, key=lambda one: one.event["id"], reverse=True)
    for delivery in [*ordered, *ordered]:
        assert post(delivery).status_code == 200
        stripe_events.process(delivery.event["id"])
    invoice = Invoice.objects.get(stripe_invoice_id=draft["id"])
    assert invoice.status == "paid"
    own = [name for name, told in news if told.pk == invoice.pk]
    assert own == ["invoice_finalized", "invoice_paid"]
    assert StripeEvent.objects.count() == len({one.event["id"] for one in deliveries})
    assert not StripeEvent.objects.filter(state=State.WAITING).exists()


def some_event(twin: Twin, kind: str = "customer.updated", **changes: Any) -> dict[str, Any]:
    twin.world.announce(kind, twin.world.all("customer")[0])
    return {**twin.world.events.pop(), **changes}


@pytest.mark.parametrize(
    "forge",
    [
        lambda twin, event: twin.webhooks.sign(event, secret="whsec_other"),
        lambda twin, event: twin.webhooks.sign(event, at=time.time() - 301),
        lambda twin, event: Delivery(b'{"id": "evt_1"}', twin.webhooks.sign(event).signature, event),
        lambda twin, event: Delivery(json.dumps(event).encode(), "", event),
        lambda twin, event: Delivery(json.dumps(event).encode(), "t=now,v1=zz", event),
        lambda twin, event: Delivery(b"\xff\xfe", twin.webhooks.sign(event).signature, event),
    ],
)
def test_what_is_not_signed_is_not_stored(twin: Twin, acme: Partner, forge: Callable[..., Delivery]) -> None:
    provisioned(acme)
    answer = post(forge(twin, some_event(twin)))
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_signature")
    assert not StripeEvent.objects.exists()


def test_a_signed_body_that_is_no_event_is_refused(twin: Twin, db: None) -> None:
    answer = post(twin.webhooks.sign({"hello": "world"}))
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


def test_a_body_too_large_is_not_read(twin: Twin, db: None) -> None:
    answer = post(Delivery(b"x" * (1024 * 1024 + 1), "t=1,v1=1", {}))
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


def test_two_secrets_are_good_during_a_rotation(twin: Twin, acme: Partner, settings: Any) -> None:
    provisioned(acme)
    settings.STRIPE_WEBHOOK_SECRETS = ["whsec_new", twin.webhooks.secret]
    assert post(twin.webhooks.sign(some_event(twin))).status_code == 200
    assert post(twin.webhooks.sign(some_event(twin), secret="whsec_new")).status_code == 200
    assert StripeEvent.objects.count() == 2


def test_an_event_of_the_other_mode_is_stored_and_ignored(twin: Twin, acme: Partner) -> None:
    provisioned(acme)
    customer = StripeCustomer.objects.get()
    event = some_event(twin, "customer.deleted", livemode=True)
    assert post(twin.webhooks.sign(event)).status_code == 200
    stored = StripeEvent.objects.get()
    assert (stored.state, stored.note) == (State.IGNORED, "of the live mode, which our key is not of")
    stripe_events.process_waiting()
    customer.refresh_from_db()
    assert not customer.is_deleted


def test_an_event_for_an_unknown_customer_is_stored_and_seen(twin: Twin, acme: Partner) -> None:
    stranger = twin.app.api.customers.create({"name": "by hand"})
    twin.world.announce("customer.updated", stranger)
    deliver(twin)
    stored = StripeEvent.objects.filter(state=State.IGNORED).first()
    assert stored is not None
    assert stored.note == f"unknown customer {stranger['id']}"


def test_while_stripe_is_away_news_waits(twin: Twin, acme: Partner) -> None:
    provisioned(acme)
    post(twin.webhooks.sign(some_event(twin)))
    twin.world.faults = [Fault("outage", times=100)]
    stripe_events.process_waiting()
    event = StripeEvent.objects.get()
    assert (event.state, event.attempts) == (State.WAITING, 1)
    assert event.next_attempt_at > timezone.now()
    twin.world.faults = []
    StripeEvent.objects.update(next_attempt_at=timezone.now())
    stripe_events.process_waiting()
    event.refresh_from_db()
    assert event.state == State.DONE


def test_a_draft_is_held_until_all_has_arrived(twin: Twin, acme: Partner, clock: Any) -> None:
    provisioned(acme)
    first, second = charge(acme), charge(acme)
    twin.world.faults = [Fault("outage", "meter_events", times=3)]
    end_of_month(twin, clock)
    deliver(twin)
    (draft,) = [one for one in twin.world.all("invoice") if one["status"] == "draft"]
    assert draft["auto_advance"] is False
    assert invoice_mirror.release_held() == 1
    assert StripeInvoice.objects.get(is_held=True).note == "2 entries are not at Stripe yet"
    twin.app.billing.advance(int(ENDED.timestamp()) + 7200)
    assert draft["status"] == "draft", "Stripe would have finalized it after an hour"
    twin.world.faults = []
    assert invoice_mirror.release_held() == 0
    assert draft["status"] == "open"
    assert draft["total"] == 2500
    assert sorted(at_twin(twin)) == sorted([str(first.pk), str(second.pk)])
    assert twin.app.meters.late == []


def test_a_draft_waits_for_aggregation(twin: Twin, acme: Partner, clock: Any) -> None:
    provisioned(acme)
    charge(acme)
    twin.world.lag_seconds = 3600
    end_of_month(twin, clock)
    deliver(twin)
    assert invoice_mirror.release_held() == 1
    assert StripeInvoice.objects.get(is_held=True).note == "Stripe has not counted all: grant 0 of 1"
    twin.world.lag_seconds = 0
    assert invoice_mirror.release_held() == 0
    assert Invoice.objects.get(status="open").total == 1250


def test_corrections_of_the_period_stand_on_its_draft(twin: Twin, acme: Partner, clock: Any) -> None:
    provisioned(acme)
    charge(acme)
    clock.move_to(dt.datetime(2026, 11, 30, 23, 59, tzinfo=dt.UTC))
    credit = ledger.correct(acme, -250, reason="late delivery", actor=ACTOR, source_id="c-1")
    end_of_month(twin, clock)
    deliver(twin)
    assert invoice_mirror.release_held() == 0
    invoice = Invoice.objects.get(status="open")
    assert invoice.total == 1000
    line = invoice.lines.get(kind="credit")
    assert (line.amount, line.entry_id) == (-250, credit.pk)


def test_an_invoice_that_was_final_before_the_flush_gets_no_more_usage(
    twin: Twin, acme: Partner, clock: Any
) -> None:
    provisioned(acme)
    late = charge(acme)
    end_of_month(twin, clock)
    twin.app.billing.advance(int(ENDED.timestamp()) + 7200)
    deliver(twin)
    assert Invoice.objects.filter(origin="stripe", status="paid", total=0).exists()
    assert syncing.sync().rejected == 1
    late.refresh_from_db()
    assert (late.sync_state, late.sync_error.partition(":")[0]) == ("rejected", "late_event")
    assert at_twin(twin) == []


def test_a_declined_card_is_told_and_the_grace_runs(
    twin: Twin, acme: Partner, clock: Any, news: list[Any]
) -> None:
    provisioned(acme, payment_terms_days=0, grace_days=14)
    twin.app.api.customers.attach(twin.world.all("customer")[0], DECLINED)
    charge(acme)
    end_of_month(twin, clock)
    deliver(twin)
    invoice_mirror.release_held()
    deliver(twin)
    invoice = Invoice.objects.get(origin="stripe", status="open")
    assert invoice.last_payment_error
    assert [name for name, told in news if told.pk == invoice.pk] == [
        "invoice_finalized",
        "invoice_payment_failed",
    ]
    assert invoice.grace_ends_at is not None
    assert invoice.due_at is not None
    assert invoice.grace_ends_at - invoice.due_at == dt.timedelta(days=14)
    assert not Invoice.objects.overdue(timezone.now()).exists()
    clock.shift(dt.timedelta(days=15))
    assert Invoice.objects.overdue(timezone.now()).get() == invoice
    twin.app.api.customers.attach(twin.world.all("customer")[0], "pm_card_visa")
    assert twin.app.billing.charge(twin.world.objects[invoice.stripe_invoice_id])
    deliver(twin)
    assert not Invoice.objects.overdue(timezone.now()).exists()
    assert news[-1][0] == "invoice_paid"


def test_the_default_card_is_shown(twin: Twin, acme: Partner) -> None:
    provisioned(acme)
    twin.app.api.customers.attach(twin.world.all("customer")[0], "pm_card_visa")
    deliver(twin)
    customer = StripeCustomer.objects.get()
    assert (customer.card_brand, customer.card_last4, customer.card_expires) == ("visa", "4242", "2034-12")


def test_a_customer_deleted_at_stripe_is_known(twin: Twin, acme: Partner) -> None:
    provisioned(acme)
    twin.app.api.customers.delete({}, StripeCustomer.objects.get().customer_id)
    deliver(twin)
    assert StripeCustomer.objects.get().is_deleted
    charge(acme)
    assert syncing.sync() == syncing.Counts()
    assert LedgerEntry.objects.get().sync_state == "pending"


def test_the_draft_of_our_own_gives_way_to_stripes(twin: Twin, acme: Partner, clock: Any) -> None:
    provisioned(acme)
    charge(acme)
    end_of_month(twin, clock)
    deliver(twin)
    assert invoice_mirror.release_held() == 0
    assert Invoice.objects.get(origin="local").status == "void"
    assert Invoice.objects.filter(origin="stripe", status="open").count() == 1


def test_a_partner_opens_the_portal_and_adds_a_card(twin: Twin, api: Api) -> None:
    provisioned(api.partner)
    answer = api.post("/v2/billing/portal-session")
    assert answer.status_code == 200
    assert answer.json()["url"].startswith("https://billing.stripe.com/p/session/")
    assert answer["Cache-Control"] == "no-store"
    assert "_secret_" in api.post("/v2/billing/setup-intent").json()["client_secret"]


def test_a_partners_idempotency_key_opens_nobody_elses_portal(twin: Twin, api: Api, stranger: Api) -> None:
    urls = set()
    for each in (api, stranger):
        provisioned(each.partner)
        answer = each.post("/v2/billing/portal-session", Idempotency_Key="same")
        assert answer.status_code == 200, answer.json()
        urls.add(answer.json()["url"])
    assert len(urls) == 2


def test_without_an_account_the_portal_says_so(twin: Twin, api: Api) -> None:
    answer = api.post("/v2/billing/portal-session")
    assert (answer.status_code, answer.json()["code"]) == (409, "payments_not_set_up")


def test_a_test_key_does_not_open_the_portal(twin: Twin, acme: Partner) -> None:
    provisioned(acme)
    answer = Api.of(acme, environment="test").post("/v2/billing/portal-session")
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_a_key_without_the_scope_does_not_either(twin: Twin, acme: Partner) -> None:
    provisioned(acme)
    answer = Api.of(acme, scopes=["deed:read"]).post("/v2/billing/portal-session")
    assert (answer.status_code, answer.json()["required_scope"]) == (403, "billing:read")


def test_a_stripe_that_is_away_is_a_503(twin: Twin, api: Api) -> None:
    provisioned(api.partner)
    twin.world.faults = [Fault("outage", times=10)]
    answer = api.post("/v2/billing/portal-session")
    assert (answer.status_code, answer.json()["code"]) == (503, "payments_unavailable")
    assert answer["Retry-After"] == "30"


def test_settled_events_are_removed_after_their_time(twin: Twin, acme: Partner, settings: Any) -> None:
    """They name people. What waits is kept, or it would never be acted on."""
    settings.STRIPE_EVENT_RETENTION_DAYS = 90
    now = timezone.now()
    for name, state, days in (("old", "done", 91), ("young", "done", 89), ("waiting", "waiting", 91)):
        StripeEvent.objects.create(
            event_id=name,
            kind="invoice.paid",
            livemode=False,
            body="{}",
            created_at=now,
            received_at=now - dt.timedelta(days=days),
            state=state,
            settled_at=None if state == "waiting" else now,
        )
    assert retention.forget_stripe_events() == 1
    assert set(StripeEvent.objects.values_list("pk", flat=True)) == {"young", "waiting"}
