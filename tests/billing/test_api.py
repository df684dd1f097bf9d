"""A partner reads its own invoices and account, and nobody else's."""

import datetime as dt
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.core.management import call_command
from django.utils import timezone

from billing import contracts, invoicing, ledger, periods, requests_quota
from billing.ledger import DeedFacts
from billing.models import BillingPeriod, Invoice, LedgerEntry
from billing.signals import quota_threshold_reached
from keys import audit
from keys.models import Partner
from tests.api import Api, errors_of

Orders = Callable[..., dict[str, Any]]
FINANCE = audit.Actor("staff", "finance")


def agreed(partner: Partner, model: str = "hybrid", fee: str = "50.00", **terms: Any) -> None:
    rows = [("deed", 0, Decimal(0)), ("deed", 1, Decimal("4.00"))] if model == "hybrid" else []
    today = timezone.now().date()
    contracts.agree(
        partner,
        {"model": model, "starts_on": today.replace(day=1), "base_fee": Decimal(fee), **terms},
        rows,
        FINANCE,
    )


def charged(partner: Partner, times: int = 1) -> None:
    for _ in range(times):
        ledger.charge(
            DeedFacts(
                partner, uuid.uuid4(), "grant", livemode=True, is_reissue=False, completed_at=timezone.now()
            )
        )


def closed(partner: Partner) -> Invoice:
    end = periods.at(partner, timezone.now()).ends_at
    with time_machine.travel(end + dt.timedelta(hours=1)):
        call_command("draft_invoices")
    return partner.invoices.get()


def test_it_works(api: Api) -> None:
    agreed(api.partner)
    charged(api.partner, 3)
    invoice = closed(api.partner)
    listed = api.get("/v2/invoices").json()
    assert (listed["next"], listed["previous"]) == (None, None)
    assert [row["id"] for row in listed["data"]] == [str(invoice.pk)]
    answer = api.get(f"/v2/invoices/{invoice.pk}").json()
    assert (answer["status"], answer["is_sent"], answer["number"]) == ("draft", False, None)
    assert (answer["total"], answer["amount_due"], answer["currency"]) == ("58.00", "58.00", "USD")
    assert [(line["kind"], line["quantity"], line["amount"]) for line in answer["lines"]] == [
        ("base_fee", 1, "50.00"),
        ("deed", 2, "8.00"),
        ("deed", 1, "0.00"),
    ]


def test_drafting_twice_drafts_once(api: Api) -> None:
    agreed(api.partner)
    invoice = closed(api.partner)
    assert closed(api.partner) == invoice
    assert LedgerEntry.objects.filter(kind="base_fee").count() == 1


def test_a_running_period_is_not_closed(api: Api) -> None:
    agreed(api.partner)
    charged(api.partner)
    call_command("draft_invoices")
    assert not Invoice.objects.exists()
    with pytest.raises(ValueError, match="has not ended"):
        invoicing.close(BillingPeriod.objects.get())


def test_what_comes_after_the_draft_is_in_the_next_one(api: Api) -> None:
    agreed(api.partner)
    charged(api.partner)
    late = timezone.now()
    first = closed(api.partner)
    facts = DeedFacts(api.partner, uuid.uuid4(), "grant", livemode=True, is_reissue=False, completed_at=late)
    with time_machine.travel(late + dt.timedelta(days=40)):
        entry = ledger.charge(facts)
    assert entry is not None
    assert first.period is not None
    assert entry.period.starts_at == first.period.ends_at
    assert entry.occurred_at == late


def test_a_foreign_invoice_looks_like_none(api: Api, stranger: Api) -> None:
    agreed(api.partner)
    invoice = closed(api.partner)
    foreign = stranger.get(f"/v2/invoices/{invoice.pk}")
    absent = stranger.get(f"/v2/invoices/{uuid.uuid4()}")
    assert foreign.status_code == absent.status_code == 404
    assert foreign.json()["detail"] == absent.json()["detail"]
    assert stranger.get("/v2/invoices").json()["data"] == []


@pytest.mark.parametrize(
    "path", ["/v2/invoices", "/v2/invoices/01a20fb1-b79f-7532-95ee-09d2fa7d031d", "/v2/billing"]
)
def test_it_needs_its_scope(acme: Partner, path: str) -> None:
    answer = Api.of(acme, scopes=["deed:*"]).get(path)
    assert answer.status_code == 403
    assert answer.json()["required_scope"] == "billing:read"


@pytest.mark.parametrize(
    ("query", "pointer", "code"),
    [
        ("limit=0", "/limit", "invalid_value"),
        ("limit=101", "/limit", "invalid_value"),
        ("limit=x", "/limit", "invalid_value"),
        ("cursor=x", "/cursor", "invalid_cursor"),
        ("state=open", "/state", "unknown_parameter"),
    ],
)
def test_a_wrong_query_is_refused(api: Api, query: str, pointer: str, code: str) -> None:
    assert errors_of(api.get(f"/v2/invoices?{query}")) == {pointer: code}


def test_pages_are_walked_by_cursor(api: Api) -> None:
    for number in range(3):
        Invoice.objects.create(partner=api.partner, currency="USD", number=str(number))
    page = api.get("/v2/invoices?limit=2").json()
    assert [row["number"] for row in page["data"]] == ["2", "1"]
    rest = api.get(page["next"].removeprefix("http://testserver")).json()
    assert [row["number"] for row in rest["data"]] == ["0"]


def test_the_account_shows_the_running_period(api: Api) -> None:
    agreed(api.partner)
    Partner.objects.update(monthly_deed_quota=10, budget_cap=Decimal("100.00"))
    charged(api.partner, 2)
    answer = api.get("/v2/billing").json()
    assert answer["contract"]["model"] == "hybrid"
    assert answer["quotas"]["deeds"] == {"limit": 10, "used": 2, "reserved": 0}
    assert answer["quotas"]["budget"] == {"limit": "100.00", "used": "4.00", "reserved": "0.00"}
    assert [(part["currency"], part["total"]) for part in answer["estimate"]] == [("USD", "54.00")]
    assert answer["is_payment_required"] is False
    assert not Invoice.objects.exists(), "looking at it writes no invoice"


def test_the_account_of_a_partner_without_a_contract(api: Api) -> None:
    answer = api.get("/v2/billing").json()
    assert answer["contract"] is None
    assert answer["estimate"] == []
    assert answer["quotas"]["deeds"]["limit"] is None


def test_an_overdue_invoice_is_shown(api: Api) -> None:
    now = timezone.now()
    invoice = Invoice.objects.create(partner=api.partner, currency="USD", status="open", grace_ends_at=now)
    answer = api.get("/v2/billing").json()
    assert answer["unpaid_invoices"] == [str(invoice.pk)]
    assert answer["is_payment_required"] is True


def test_requests_are_counted_and_refused_beyond_their_quota(api: Api, stranger: Api, settings: Any) -> None:
    settings.REQUEST_QUOTA_SECONDS = 0.0
    Partner.objects.filter(pk=api.partner.pk).update(monthly_request_quota=10)
    told: list[int] = []

    def receiver(quota: str, percent: int, **_: Any) -> None:
        told.append(percent)

    quota_threshold_reached.connect(receiver)
    try:
        requests_quota.count({(api.partner.pk, timezone.now()): 9, (stranger.partner.pk, timezone.now()): 99})
        assert api.get("/v2/deeds").status_code == 200
        requests_quota.count({(api.partner.pk, timezone.now()): 1})
    finally:
        quota_threshold_reached.disconnect(receiver)
    assert told == [50, 80, 100]
    refused = api.get("/v2/deeds")
    assert refused.status_code == 402
    assert refused.json()["code"] == "quota_exceeded"
    assert refused.json()["quota"] == "requests"
    assert (refused.json()["limit"], refused.json()["used"]) == (10, 10)
    assert api.get("/v2/billing").status_code == 200
    assert Api.of(api.partner, environment="test").get("/v2/deeds").status_code == 200
    assert stranger.get("/v2/deeds").status_code == 200
    BillingPeriod.objects.filter(partner=api.partner).update(extra_requests=1)
    assert api.get("/v2/deeds").status_code == 200


def test_a_soft_request_quota_refuses_nothing(api: Api, settings: Any) -> None:
    settings.REQUEST_QUOTA_SECONDS = 0.0
    agreed(api.partner, quota_mode="soft")
    Partner.objects.update(monthly_request_quota=1)
    requests_quota.count({(api.partner.pk, timezone.now()): 5})
    assert api.get("/v2/deeds").status_code == 200


@pytest.mark.parametrize(
    ("livemode", "status", "is_counted"),
    [
        (True, 200, True),
        (True, 422, True),
        (True, 404, True),
        (True, 429, False),
        (True, 503, False),
        (False, 200, False),
    ],
)
def test_which_requests_count(livemode: bool, status: int, is_counted: bool) -> None:
    assert requests_quota.is_counted(livemode=livemode, status=status) is is_counted


def test_a_budget_without_a_contract_is_in_the_products_currency(api: Api, settings: Any) -> None:
    settings.BILLING_CURRENCY = "JPY"
    Partner.objects.filter(pk=api.partner.pk).update(budget_cap=Decimal(5000))
    assert api.get("/v2/billing").json()["quotas"]["budget"]["limit"] == "5000"
