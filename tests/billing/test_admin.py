"""Finance's pages: contracts, ledger, invoices, periods; who may what, and what is noted of it."""

import csv
import datetime as dt
import html
import io
import uuid
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.contrib.admin import AdminSite
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone
from openpyxl import load_workbook

from billing import contracts, invoicing, ledger
from billing.admin.base import ExportingAdmin
from billing.ledger import DeedFacts
from billing.models import BillingPeriod, Contract, Invoice, LedgerEntry
from keys import audit
from keys.models import AuditEntry, Partner
from tests.staff import hire, log_in

FINANCE = audit.Actor("staff", "finance")


@pytest.fixture
def reader(db: None, quick_passwords: None) -> Client:
    """Staff that may only look."""
    user = hire("reader")
    user.user_permissions.set(
        Permission.objects.filter(content_type__app_label="billing", codename__startswith="view_")
    )
    return log_in(user)


def contract_form(partner: Partner, *prices: tuple[str, str, str], **changes: str) -> dict[str, str]:
    form = {
        "partner": str(partner.pk),
        "model": "per_deed",
        "currency": "USD",
        "starts_on": str(timezone.now().date()),
        "ends_on": "",
        "anchor_day": "1",
        "payment_terms_days": "30",
        "grace_days": "14",
        "base_fee": "0",
        "quota_mode": "hard",
        "notes": "",
        "prices-TOTAL_FORMS": str(len(prices)),
        "prices-INITIAL_FORMS": "0",
    }
    for number, (item, after, price) in enumerate(prices):
        form |= {
            f"prices-{number}-item": item,
            f"prices-{number}-after_quantity": after,
            f"prices-{number}-unit_price": price,
        }
    return form | changes


def charged(partner: Partner, times: int = 1) -> None:
    for _ in range(times):
        ledger.charge(
            DeedFacts(
                partner, uuid.uuid4(), "grant", livemode=True, is_reissue=False, completed_at=timezone.now()
            )
        )


def agreed(partner: Partner, price: str = "12.50") -> Contract:
    fields = {"model": "per_deed", "starts_on": timezone.now().date(), "base_fee": Decimal(0)}
    return contracts.agree(partner, fields, [("grant", 0, Decimal(price))], FINANCE)


def drafted(partner: Partner) -> Invoice:
    period = BillingPeriod.objects.get(partner=partner)
    with time_machine.travel(period.ends_at + dt.timedelta(hours=1)):
        (invoice,) = invoicing.close(period)
    return invoice


def test_a_contract_is_entered_and_audited(staff: Client, acme: Partner) -> None:
    assert staff.get("/admin/billing/contract/add/").status_code == 200
    form = contract_form(acme, ("grant", "0", "12.50"), ("grant", "100", "0.0125"))
    answer = staff.post("/admin/billing/contract/add/", form)
    assert answer.status_code == 302, answer.content
    contract = Contract.objects.get()
    assert (contract.version, contract.author) == (1, "root")
    assert [price.unit_price for price in contract.prices.all()] == [Decimal("12.5"), Decimal("0.0125")]
    entry = AuditEntry.objects.get(action="contract.agreed")
    assert (entry.actor, entry.partner) == ("root", acme)


def test_a_change_starts_from_a_copy_and_is_another_version(staff: Client, acme: Partner) -> None:
    first = agreed(acme)
    page = staff.get(f"/admin/billing/contract/{first.pk}/change/").content.decode()
    assert f"/admin/billing/contract/add/?partner={acme.pk}" in page
    assert 'name="_save"' not in page
    copied = staff.get(f"/admin/billing/contract/add/?partner={acme.pk}").content.decode()
    assert 'value="12.5"' in copied
    assert 'value="grant"' in copied
    form = contract_form(
        acme, ("grant", "0", "11.00"), starts_on=str(timezone.now().date() + dt.timedelta(days=3))
    )
    assert staff.post(f"/admin/billing/contract/add/?partner={acme.pk}", form).status_code == 302
    assert list(acme.contracts.order_by("version").values_list("version", flat=True)) == [1, 2]
    first.refresh_from_db()
    assert first.ends_on is None


@pytest.mark.parametrize(
    ("prices", "changes", "message"),
    [
        ([], {}, "a price for at least"),
        ([("grant", "5", "1")], {}, "must start after 0"),
        ([("grant", "0", "1"), ("grant", "0", "2")], {}, "correct the duplicate"),
        ([("grant", "0", "1")], {"starts_on": "2020-01-01"}, "A change starts today or later"),
        ([("grant", "0", "1")], {"model": "hybrid"}, "has a base fee"),
        ([("grant", "0", "1")], {"anchor_day": "32"}, "contract_anchor_is_a_day"),
    ],
)
def test_a_contract_with_a_mistake_is_shown_again(
    staff: Client, acme: Partner, prices: Any, changes: dict[str, str], message: str
) -> None:
    today = timezone.now().date()
    fields = {"model": "flat", "starts_on": today - dt.timedelta(days=9), "base_fee": Decimal(5)}
    contracts.agree(acme, fields, [], FINANCE)
    answer = staff.post("/admin/billing/contract/add/", contract_form(acme, *prices, **changes))
    assert answer.status_code == 200
    assert message in answer.content.decode()
    assert Contract.objects.count() == 1


def test_a_contract_is_ended_and_one_to_come_withdrawn(staff: Client, acme: Partner) -> None:
    contract = agreed(acme)
    url = f"/admin/billing/contract/{contract.pk}"
    assert "Only a version" in staff.post(f"{url}/withdraw/", {"reason": "typo"}).content.decode()
    last = timezone.now().date() + dt.timedelta(days=3)
    assert staff.post(f"{url}/end/", {"last_day": str(last), "reason": "they left"}).status_code == 302
    contract.refresh_from_db()
    assert contract.ends_on == last
    assert AuditEntry.objects.get(action="contract.ended").reason == "they left"


def test_the_ledger_has_a_running_total_and_its_sum(staff: Client, acme: Partner) -> None:
    agreed(acme)
    charged(acme, 3)
    charged(Partner.objects.create(name="Pacific Escrow"))
    page = staff.get(f"/admin/billing/ledgerentry/?partner__id__exact={acme.pk}").content.decode()
    for total in ("12.50 USD", "25.00 USD", "37.50 USD"):
        assert total in page
    assert "Sum of this list" in page
    assert "choose a partner" in staff.get("/admin/billing/ledgerentry/").content.decode()


def test_a_credit_note_is_entered_once(staff: Client, acme: Partner) -> None:
    agreed(acme)
    url = "/admin/billing/ledgerentry/correct/"
    assert staff.get(url).status_code == 200
    form = {"partner": str(acme.pk), "amount": "-3.00", "reason": "goodwill", "token": str(uuid.uuid4())}
    assert staff.post(url, form).status_code == 302
    assert staff.post(url, form).status_code == 302
    entry = LedgerEntry.objects.get()
    assert (entry.kind, entry.amount_minor, entry.author) == ("credit", -300, "root")
    assert "more decimals" in staff.post(url, form | {"amount": "1.005"}).content.decode()
    assert "changes nothing" in staff.post(url, form | {"amount": "0"}).content.decode()
    assert LedgerEntry.objects.count() == 1


def test_exports_hold_the_filtered_list_and_no_formula(staff: Client, acme: Partner) -> None:
    agreed(acme)
    charged(acme, 2)
    ledger.correct(acme, -300, reason='=HYPERLINK("http://evil")', actor=FINANCE, source_id="1")
    answer = staff.get("/admin/billing/ledgerentry/export.csv?kind__exact=credit")
    assert answer.streaming
    rows = list(csv.DictReader(io.StringIO(answer.getvalue().decode())))
    assert [(row["kind"], row["amount"], row["reason"]) for row in rows] == [
        ("credit", "-3.00", '\'=HYPERLINK("http://evil")')
    ]
    ledger.correct(acme, -200, reason=" =1;=2", actor=FINANCE, source_id="2")
    answer = staff.get("/admin/billing/ledgerentry/export.csv?kind__exact=credit")
    assert {row["reason"] for row in csv.DictReader(io.StringIO(answer.getvalue().decode()))} == {
        "' =1;'=2",
        '\'=HYPERLINK("http://evil")',
    }
    answer = staff.get("/admin/billing/ledgerentry/export.xlsx")
    sheet = load_workbook(io.BytesIO(answer.getvalue())).active
    assert sheet is not None
    assert sheet.max_row == 5
    assert "f" not in {cell.data_type for row in sheet.iter_rows() for cell in row}
    assert staff.get("/admin/billing/ledgerentry/export.pdf").status_code == 404


def test_invoices_show_their_lines_totals_and_that_they_are_not_sent(staff: Client, acme: Partner) -> None:
    agreed(acme)
    charged(acme, 2)
    invoice = drafted(acme)
    page = staff.get("/admin/billing/invoice/").content.decode()
    assert "1 draft" in page
    assert "NOT SENT" in page
    page = staff.get(f"/admin/billing/invoice/{invoice.pk}/change/").content.decode()
    assert "25.00 USD" in page
    line = invoice.lines.get()
    assert f"/admin/billing/invoice/line/{line.pk}/" in page
    why = staff.get(f"/admin/billing/invoice/line/{line.pk}/").content.decode()
    for source_id in LedgerEntry.objects.values_list("source_id", flat=True):
        assert source_id in why
    assert "2 ledger entries" in why
    assert "2500" in why
    rows = list(
        csv.DictReader(io.StringIO(staff.get("/admin/billing/invoice/export.csv").getvalue().decode()))
    )
    assert [(row["partner"], row["total"], row["sent"]) for row in rows] == [("Acme Title", "25.00", "no")]


@pytest.mark.parametrize(("age", "found"), [("due", "NEW"), ("0", "LATE OLD"), ("30", "OLD"), ("90", "")])
def test_invoices_are_filtered_by_age(staff: Client, acme: Partner, age: str, found: str) -> None:
    now = timezone.now()
    for number, days in (("NEW", -5), ("LATE", 5), ("OLD", 45)):
        Invoice.objects.create(
            partner=acme, currency="USD", status="open", number=number, due_at=now - dt.timedelta(days=days)
        )
    Invoice.objects.create(
        partner=acme, currency="USD", status="paid", number="PAID", due_at=now - dt.timedelta(days=200)
    )
    answer = staff.get(f"/admin/billing/invoice/?age={age}")
    assert {invoice.number for invoice in answer.context["cl"].queryset} == set(found.split())


def test_the_running_period_of_every_partner(staff: Client, acme: Partner) -> None:
    agreed(acme)
    charged(acme, 2)
    Partner.objects.create(name="Pacific Escrow")
    Invoice.objects.create(partner=acme, currency="USD", status="open", amount_due=9900, total=9900)
    page = staff.get("/admin/billing/billingperiod/preview/").content.decode()
    for text in ("Acme Title", "Pacific Escrow", "25.00 USD", "99.00 USD"):
        assert text in page
    assert "Running periods" in staff.get("/admin/billing/billingperiod/").content.decode()


def test_more_is_granted_for_a_period_and_audited(staff: Client, acme: Partner) -> None:
    charged(acme)
    period = BillingPeriod.objects.get()
    url = f"/admin/billing/billingperiod/{period.pk}/grant/"
    assert (
        "Grant more of something"
        in staff.post(url, {"deeds": 0, "requests": 0, "budget": 0, "reason": "x"}).content.decode()
    )
    answer = staff.post(url, {"deeds": 10, "requests": 0, "budget": "5.00", "reason": "month-end rush"})
    assert answer.status_code == 302
    period.refresh_from_db()
    assert (period.extra_deeds, period.extra_budget) == (10, Decimal(500))
    entry = AuditEntry.objects.get(action="quota.granted")
    assert (entry.actor, entry.reason, entry.after["deeds"]) == ("root", "month-end rush", 10)


def test_variances_are_listed_and_repaired(staff: Client, acme: Partner) -> None:
    agreed(acme)
    charged(acme)  # there is no such deed
    page = staff.get("/admin/billing/ledgerentry/reconcile/").content.decode()
    assert "orphan_charge" in page
    entry = LedgerEntry.objects.get()
    url = f"/admin/billing/ledgerentry/reconcile/repair/?variance=orphan_charge%3A{entry.pk}"
    assert html.escape(url) in page
    assert "no completed live deed" in staff.get(url).content.decode()
    assert staff.post(url).status_code == 200
    staff.post("/admin/billing/ledgerentry/reconcile/", {"variance": f"orphan_charge:{entry.pk}"})
    assert LedgerEntry.objects.count() == 1, "without a reason nothing is repaired"
    assert staff.post(url, {"reason": "entered by hand in May"}).status_code == 302
    assert LedgerEntry.objects.get(kind="credit").amount_minor == -1250
    assert "Everything agrees" in staff.get("/admin/billing/ledgerentry/reconcile/").content.decode()
    ordered = AuditEntry.objects.get(action="reconciliation.repair_ordered")
    assert (ordered.actor, ordered.partner, ordered.reason) == ("root", acme, "entered by hand in May")
    assert ordered.after == {"variance": "orphan_charge", "subject": str(entry.pk)}
    assert "nothing to repair" in staff.post(url, {"reason": "again"}, follow=True).content.decode()
    assert LedgerEntry.objects.filter(kind="credit").count() == 1


@pytest.mark.parametrize(
    "path",
    [
        "/admin/billing/contract/add/",
        "/admin/billing/ledgerentry/correct/",
        "/admin/billing/ledgerentry/export.csv",
        "/admin/billing/invoice/export.xlsx",
        "/admin/billing/billingperiod/{period}/grant/",
        "/admin/billing/contract/{contract}/end/",
        "/admin/billing/contract/{contract}/withdraw/",
    ],
)
def test_who_may_only_look_changes_and_takes_away_nothing(reader: Client, acme: Partner, path: str) -> None:
    contract = agreed(acme)
    charged(acme)
    url = path.format(period=BillingPeriod.objects.get().pk, contract=contract.pk)
    assert reader.get(url).status_code == 403
    assert reader.post(url, {"reason": "x"}).status_code == 403


@pytest.mark.parametrize("model", ["contract", "ledgerentry", "invoice", "billingperiod"])
def test_who_may_only_look_sees_every_list(reader: Client, acme: Partner, model: str) -> None:
    agreed(acme)
    charged(acme)
    page = reader.get(f"/admin/billing/{model}/")
    assert page.status_code == 200
    assert ">CSV<" not in page.content.decode()


@pytest.mark.parametrize("model", ["ledgerentry", "invoice", "billingperiod", "contract"])
def test_nothing_of_the_books_can_be_edited_or_deleted(staff: Client, acme: Partner, model: str) -> None:
    contract = agreed(acme)
    charged(acme)
    row = {
        "contract": contract,
        "ledgerentry": LedgerEntry.objects.get(),
        "invoice": Invoice.objects.create(partner=acme, currency="USD"),
        "billingperiod": BillingPeriod.objects.get(),
    }[model]
    url = f"/admin/billing/{model}/{row.pk}"
    assert 'name="_save"' not in staff.get(f"{url}/change/").content.decode()
    assert staff.post(f"{url}/change/", {"notes": "x", "reason": "x"}).status_code == 403
    assert staff.post(f"{url}/delete/", {"post": "yes"}).status_code == 403


def test_a_page_that_says_not_what_it_exports_cannot_be_registered(db: None) -> None:
    class Half(ExportingAdmin):
        def totals(self, queryset: Any) -> list[tuple[str, str]]:
            return []

    with pytest.raises(TypeError, match="export_rows"):
        AdminSite().register(Invoice, Half)
