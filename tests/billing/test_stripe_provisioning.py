"""A contract at Stripe: all of it, once, whatever happens in between."""

import datetime as dt
import io
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import Permission
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from billing import invoice_mirror, provisioning, stripe_events, syncing
from billing.models import Contract, Invoice, StripeCustomer, StripeSubscription
from billing.stripe_client import metering
from keys.models import AuditEntry, Partner
from partner_api.local.stripe_twin.cycles import amount_of
from partner_api.local.stripe_twin.server import Twin
from partner_api.local.stripe_twin.world import Fault
from tests.billing.books import ACTOR, agree, charge, provisioned
from tests.staff import hire, log_in

HYBRID = (
    ("grant", 0, Decimal(0)),
    ("grant", 100, Decimal("8.505")),
    ("grant", 500, Decimal("7.25")),
    ("deed", 0, Decimal("9.99")),
)


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("stripe_provision", *arguments, stdout=out, stderr=out)
    return out.getvalue()


def shape(twin: Twin) -> dict[str, int]:
    kinds = ("customer", "product", "price", "billing.meter", "subscription")
    return {kind: len(twin.world.all(kind)) for kind in kinds}


def test_it_works(twin: Twin, acme: Partner) -> None:
    contract = agree(
        acme,
        starts_on=timezone.now().date().replace(day=1),
        rows=HYBRID,
        model="hybrid",
        base_fee=Decimal("199.90"),
        anchor_day=15,
        payment_terms_days=21,
    )
    assert "+ subscription" in run()
    (base, deed, grant) = sorted(twin.world.all("price"), key=lambda price: price["lookup_key"])
    assert base["recurring"]["usage_type"] == "licensed"
    assert base["unit_amount_decimal"] == "19990"
    assert (deed["unit_amount_decimal"], deed["recurring"]["usage_type"]) == ("999", "metered")
    assert [(tier["up_to"], tier["unit_amount_decimal"]) for tier in grant["tiers"]] == [
        ("100", "0"),
        ("500", "850.5"),
        ("inf", "725"),
    ]
    assert amount_of(grant, 502) == 400 * 850.5 + 2 * 725
    (subscription,) = twin.world.all("subscription")
    assert subscription["_day"] == 15
    assert (subscription["collection_method"], subscription["days_until_due"]) == ("send_invoice", "21")
    contract.refresh_from_db()
    assert contract.stripe_subscription.subscription_id == subscription["id"]
    assert contract.provisioned_at is not None
    assert AuditEntry.objects.filter(action="contract.provisioned").count() == 1


def test_a_partner_that_pays_by_card_is_subscribed_once_it_has_one(twin: Twin, acme: Partner) -> None:
    starts_on = timezone.now().date().replace(day=1)
    agree(acme, starts_on=starts_on, base_fee=Decimal("199.90"), payment_terms_days=0)
    with pytest.raises(CommandError, match="run it again"):
        run()
    assert twin.world.all("subscription") == []
    (customer,) = twin.world.all("customer")
    twin.app.api.customers.attach(customer, "pm_card_visa")
    run()
    assert len(twin.world.all("subscription")) == 1
    assert [invoice["status"] for invoice in twin.world.all("invoice")] == ["paid"]


def test_run_twice_it_changes_nothing(twin: Twin, acme: Partner) -> None:
    provisioned(acme)
    before = shape(twin)
    assert "  +" not in run()
    assert shape(twin) == before
    assert AuditEntry.objects.filter(action="contract.provisioned").count() == 1


def test_a_dry_run_makes_nothing(twin: Twin, acme: Partner) -> None:
    agree(acme, starts_on=timezone.now().date())
    text = run("--partner", "Acme Title", "--dry-run")
    assert "+ customer for Acme Title" in text
    assert "1250 each (USD, minor units)" in text
    assert set(shape(twin).values()) == {0}
    assert not StripeCustomer.objects.exists()


@pytest.mark.parametrize("kind", ["lost", "500", "500_after", "outage"])
def test_a_crash_at_any_step_goes_on_from_there(twin: Twin, acme: Partner, kind: str) -> None:
    """Each call that makes something breaks once, whether it was done or not."""
    agree(acme, starts_on=timezone.now().date(), model="hybrid", base_fee=Decimal(50))
    for path in ("customers", "products", "meters", "prices", "subscriptions"):
        twin.world.faults = [Fault(kind, path, method="POST")]
        for _ in range(4):
            try:
                run()
            except CommandError:
                continue
    run()
    assert shape(twin) == {
        "customer": 1,
        "product": 1,
        "price": 3,
        "billing.meter": 2,
        "subscription": 1,
    }


def test_a_price_archived_at_stripe_is_made_again_for_a_new_subscription(twin: Twin, acme: Partner) -> None:
    contract = agree(acme, starts_on=timezone.now().date() + dt.timedelta(days=1))
    provisioning.provision(contract, ACTOR)
    for price in twin.world.all("price"):
        price["active"] = False
    with time_machine.travel(timezone.now() + dt.timedelta(days=1, minutes=5)):
        twin.world.offset_seconds = 0
        provisioning.provision(Contract.objects.get(), ACTOR)
    assert [price["active"] for price in twin.world.all("price")] == [False, False, True, True]
    (subscription,) = twin.world.all("subscription")
    assert all(item["price"]["active"] for item in subscription["items"]["data"])


def test_a_contract_that_starts_later_is_prepared_and_begins_on_its_day(twin: Twin, acme: Partner) -> None:
    with time_machine.travel(dt.datetime(2026, 11, 10, 12, tzinfo=dt.UTC), tick=True) as clock:
        agree(acme, starts_on=dt.date(2026, 11, 12))
        assert "(on its first day)" in run()
        assert shape(twin)["subscription"] == 0
        clock.move_to(dt.datetime(2026, 11, 12, 0, 30, tzinfo=dt.UTC))
        for contract in provisioning.due(timezone.now()):
            assert provisioning.provision_quietly(contract, ACTOR)
    subscription = StripeSubscription.objects.get()
    assert subscription.starts_at == dt.datetime(2026, 11, 12, tzinfo=dt.UTC)


def test_a_change_within_a_period_bills_each_part_at_its_price(twin: Twin, acme: Partner) -> None:
    """The old version's subscription ends when the new one's begins, and each has its own usage."""
    with time_machine.travel(dt.datetime(2026, 11, 5, 12, tzinfo=dt.UTC), tick=True) as clock:
        provisioned(acme, rows=[("deed", 0, Decimal(10))])
        charge(acme)
        syncing.sync()
        agree(acme, starts_on=dt.date(2026, 11, 16), rows=[("deed", 0, Decimal(7))])
        run()
        old = StripeSubscription.objects.get()
        assert old.ends_at == dt.datetime(2026, 11, 16, tzinfo=dt.UTC)
        clock.move_to(dt.datetime(2026, 11, 16, 0, 20, tzinfo=dt.UTC))
        for contract in provisioning.due(timezone.now()):
            provisioning.provision(contract, ACTOR)
        charge(acme)
        charge(acme)
        syncing.sync()
        ended = dt.datetime(2026, 12, 1, 0, 5, tzinfo=dt.UTC)
        clock.move_to(ended)
        twin.app.billing.advance(int(ended.timestamp()))
        for delivery in twin.webhooks.take():
            stripe_events.receive(delivery.body, delivery.signature)
        stripe_events.process_waiting()
        assert invoice_mirror.release_held() == 0
        bills = Invoice.objects.filter(origin="stripe").exclude(total=0)
        assert sorted(bills.values_list("total", flat=True)) == [1000, 1400]
        assert sum(entry.amount for entry in acme.ledger_entries.filter(kind="deed")) == 2400


def test_requests_are_priced_by_the_thousand(twin: Twin, acme: Partner) -> None:
    provisioned(acme, model="per_request", rows=[("request", 0, Decimal("0.45"))])
    (price,) = twin.world.all("price")
    assert price["unit_amount_decimal"] == "0.045"
    assert amount_of(price, 1_000_000) == 45_000


def test_a_currency_without_minor_units(twin: Twin, acme: Partner) -> None:
    provisioned(acme, currency="JPY", rows=[("deed", 0, Decimal(1500))])
    (price,) = twin.world.all("price")
    assert (price["currency"], price["unit_amount_decimal"]) == ("jpy", "1500")


def test_stripes_hundred_calls_a_second_are_kept(twin: Twin, acme: Partner, settings: Any) -> None:
    settings.STRIPE_CALLS_PER_SECOND = 60
    twin.world.per_second_other = 70
    provisioned(acme)
    for _ in range(80):
        metering.meters()
    assert twin.world.violations == {}


def test_without_a_key_the_command_says_so(db: None) -> None:
    with pytest.raises(CommandError, match="STRIPE_SECRET_KEY is not set"):
        run()


@pytest.mark.parametrize("wanted", ["Nobody", "01a20fa8-6229-704b-9fcf-10547513ce17"])
def test_an_unknown_partner_is_named(twin: Twin, db: None, wanted: str) -> None:
    with pytest.raises(CommandError, match=f"no partner '{wanted}'"):
        run("--partner", wanted)


def test_a_partner_without_a_contract_is_named(twin: Twin, acme: Partner) -> None:
    with pytest.raises(CommandError, match="Acme Title has no contract"):
        run("--partner", str(acme.pk))


def test_staff_sees_the_plan_and_brings_a_contract_to_stripe(
    twin: Twin, acme: Partner, staff: Client
) -> None:
    contract = agree(acme, starts_on=timezone.now().date())
    url = "/admin/billing/contractatstripe/"
    chosen = {"_selected_action": str(contract.pk)}
    page = staff.post(url, {**chosen, "action": "plan"}, follow=True).content.decode()
    assert "+ customer for Acme Title" in page
    assert shape(twin)["customer"] == 0
    staff.post(url, {**chosen, "action": "provision"})
    assert shape(twin)["subscription"] == 1
    assert AuditEntry.objects.get(action="contract.provisioned").actor == "root"


def test_staff_without_the_permission_can_not(twin: Twin, acme: Partner, quick_passwords: None) -> None:
    contract = agree(acme, starts_on=timezone.now().date())
    user = hire("clerk")
    user.user_permissions.add(Permission.objects.get(codename="view_contractatstripe"))
    log_in(user).post(
        "/admin/billing/contractatstripe/", {"_selected_action": str(contract.pk), "action": "provision"}
    )
    assert set(shape(twin).values()) == {0}
