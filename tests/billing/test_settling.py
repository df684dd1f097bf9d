"""Invoices that no Stripe collects: finance makes them final and marks them as paid, by hand."""

import datetime as dt
import threading
from collections.abc import Callable
from typing import Any

import pytest
import time_machine
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection
from django.test import Client
from django.utils import timezone

from billing import settling
from billing.models import Contract, Invoice, StripeSubscription
from keys.models import AuditEntry, Partner
from tests.api import Api
from tests.billing import books
from tests.billing.test_admin import FINANCE, agreed, drafted
from tests.staff import hire, log_in
from webhooks.models import Event

REASON = {"reason": "by post"}
PAID = {"reference": "cheque 1047", "reason": "it came today"}


@pytest.fixture
def draft(acme: Partner) -> Invoice:
    agreed(acme)
    for _ in range(2):
        books.charge(acme)
    return drafted(acme)


@pytest.fixture
def finance(db: None, quick_passwords: None) -> Client:
    return log_in(hire("fiona", "finance"))


def _act(client: Client, invoice: Invoice, act: str, form: dict[str, str] | None = None) -> Any:
    url = f"/admin/billing/invoice/{invoice.pk}/{act}/"
    return client.get(url) if form is None else client.post(url, form, follow=True)


def _events() -> list[str]:
    return list(Event.objects.order_by("id").values_list("type", flat=True))


def test_it_works(finance: Client, draft: Invoice) -> None:
    assert "can change it any more" in _act(finance, draft, "finalize").content.decode()
    assert "L-000001" in _act(finance, draft, "finalize", REASON).content.decode()
    draft.refresh_from_db()
    assert (draft.status, draft.is_sent, draft.number, draft.amount_due) == ("open", True, "L-000001", 2500)
    assert draft.finalized_at is not None
    assert draft.due_at == draft.finalized_at + dt.timedelta(days=30)
    assert draft.grace_ends_at == draft.due_at + dt.timedelta(days=14)
    _act(finance, draft, "mark_paid", PAID)
    draft.refresh_from_db()
    assert (draft.status, draft.amount_due, draft.amount_paid) == ("paid", 0, 2500)
    assert draft.paid_at is not None
    assert _events() == ["invoice.finalized", "invoice.paid"]
    assert {event.data["invoice"] for event in Event.objects.all()} == {str(draft.pk)}
    trail = AuditEntry.objects.filter(action__startswith="invoice.").order_by("id")
    assert [(one.action, one.actor, one.reason) for one in trail] == [
        ("invoice.finalized", "fiona", "by post"),
        ("invoice.paid", "fiona", "it came today"),
    ]
    assert trail[1].after["reference"] == "cheque 1047"


def test_a_payment_lifts_the_refusal_at_once(
    finance: Client, draft: Invoice, acme: Partner, order: Callable[..., dict[str, Any]]
) -> None:
    api = Api.of(acme)
    _act(finance, draft, "finalize", REASON)
    Invoice.objects.update(grace_ends_at=timezone.now() - dt.timedelta(seconds=1))
    refused = api.post("/v2/deeds", order(order_id="A-1"))
    assert (refused.status_code, refused.json()["code"]) == (402, "payment_required")
    _act(finance, draft, "mark_paid", PAID)
    assert api.post("/v2/deeds", order(order_id="A-1")).status_code == 202
    assert api.get(f"/v2/invoices/{draft.pk}").json()["status"] == "paid"


def test_nothing_is_done_by_looking_or_without_a_reason(finance: Client, draft: Invoice) -> None:
    for form in (None, {"reason": " "}):
        _act(finance, draft, "finalize", form)
    settling.finalize(draft, FINANCE, reason="x")
    for form in (None, {**PAID, "reference": ""}, {**PAID, "reason": ""}):
        assert _act(finance, draft, "mark_paid", form).status_code == 200
    draft.refresh_from_db()
    assert draft.status == "open"
    assert _events() == ["invoice.finalized"]


def test_an_act_is_offered_and_done_only_in_its_state(finance: Client, draft: Invoice) -> None:
    page = f"/admin/billing/invoice/{draft.pk}/change/"
    for act, other in (("finalize", "mark_paid"), ("mark_paid", "finalize")):
        shown = finance.get(page).content.decode()
        assert f"/{act}/" in shown
        assert f"/{other}/" not in shown
        assert "made here" in _act(finance, draft, other, PAID).content.decode()
        _act(finance, draft, act, PAID)
    shown = finance.get(page).content.decode()
    assert "/mark_paid/" not in shown
    for act in ("finalize", "mark_paid"):
        assert "made here" in _act(finance, draft, act, PAID).content.decode()
    assert _events() == ["invoice.finalized", "invoice.paid"]
    assert AuditEntry.objects.filter(action__startswith="invoice.").count() == 2


@pytest.mark.parametrize("status", ["draft", "open", "paid", "void", "uncollectible"])
def test_stripes_invoices_are_left_to_stripe(finance: Client, acme: Partner, status: str) -> None:
    stripes = Invoice.objects.create(
        partner=acme, currency="USD", status=status, origin="stripe", total=5, amount_due=5
    )
    for act in ("finalize", "mark_paid"):
        _act(finance, stripes, act, PAID)
    stripes.refresh_from_db()
    assert (stripes.status, stripes.amount_due) == (status, 5)
    assert _events() == []


def test_a_period_that_stripe_bills_is_not_billed_twice(
    finance: Client, draft: Invoice, settings: Any
) -> None:
    StripeSubscription.objects.create(
        contract=Contract.objects.get(), subscription_id="sub_1", starts_at=timezone.now()
    )
    settings.STRIPE_SECRET_KEY = "sk_test_x"
    assert "Stripe makes the invoice" in _act(finance, draft, "finalize", REASON).content.decode()
    settings.STRIPE_SECRET_KEY = ""
    Invoice.objects.create(
        partner=draft.partner, period=draft.period, currency="USD", status="open", origin="stripe"
    )
    assert "Stripe makes the invoice" in _act(finance, draft, "finalize", REASON).content.decode()
    draft.refresh_from_db()
    assert (draft.status, draft.number) == ("draft", "")


def test_what_costs_nothing_is_paid_once_it_is_final(acme: Partner) -> None:
    books.agree(acme, starts_on=timezone.now().date(), rows=(("grant", 0, 0),))
    books.charge(acme)
    invoice = drafted(acme)
    settling.finalize(invoice, FINANCE, reason="x")
    invoice.refresh_from_db()
    assert (invoice.status, invoice.total, invoice.amount_due) == ("paid", 0, 0)
    assert _events() == ["invoice.finalized", "invoice.paid"]


def test_numbers_follow_each_other_and_terms_are_those_of_the_period(draft: Invoice, acme: Partner) -> None:
    other = Partner.objects.create(name="Pacific Escrow")
    books.charge(other)
    without_contract = drafted(other)
    with time_machine.travel(draft.created_at + dt.timedelta(days=3)):
        books.agree(
            acme, starts_on=timezone.now().date(), payment_terms_days=5, rows=(("grant", 0, 1),), grace_days=1
        )
        settling.finalize(draft, FINANCE, reason="x")
        settling.finalize(without_contract, FINANCE, reason="x")
    assert (draft.number, without_contract.number) == ("L-000001", "L-000002")
    for invoice in (draft, without_contract):
        assert invoice.due_at is not None
        assert invoice.finalized_at is not None
        assert invoice.due_at - invoice.finalized_at == dt.timedelta(days=30)


@pytest.mark.django_db(transaction=True)
def test_two_at_once_are_one(draft: Invoice) -> None:
    done: list[str] = []

    def run(act: Callable[..., None], **given: str) -> None:
        try:
            act(Invoice.objects.get(), FINANCE, reason="x", **given)
            done.append(act.__name__)
        except ValidationError:
            pass
        finally:
            connection.close()

    for act, given in ((settling.finalize, {}), (settling.mark_paid, {"reference": "r"})):
        threads = [threading.Thread(target=run, args=(act,), kwargs=given) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert done == ["finalize", "mark_paid"]
    assert _events() == ["invoice.finalized", "invoice.paid"]


def test_the_database_gives_no_number_twice(acme: Partner) -> None:
    fields = {"partner": acme, "currency": "USD", "number": "L-000001"}
    Invoice.objects.create(**fields)
    Invoice.objects.create(**fields, origin="stripe")
    with pytest.raises(IntegrityError):
        Invoice.objects.create(**fields)
