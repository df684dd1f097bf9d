"""What an order's place depends on is remembered from the order before, and holds only while it is true."""

import datetime as dt
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.db import transaction
from django.utils import timezone

from billing import contracts, invoicing, periods, places, requests_quota
from billing.models import BillingPeriod, Contract, Invoice, Reservation
from billing.models.contract import in_force_of
from deeds import tasks
from deeds.models import Deed
from keys.models import Partner
from tests.api import Api
from tests.billing.test_quotas import FINANCE, allow, per_deed
from tests.conftest import MainApi

Orders = Callable[..., dict[str, Any]]
NEXT_DAY = dt.timedelta(days=1)


@pytest.fixture
def send(api: Api, order: Orders) -> Callable[[str], int]:
    """Orders a grant deed under a name; the answer's status."""
    return lambda name: api.post("/v2/deeds", order(order_id=name)).status_code


def remembered(api: Api) -> places.Terms | None:
    return places.recall((api.partner.pk, "grant", False))


def test_it_works(api: Api, send: Any) -> None:
    allow(api.partner, monthly_deed_quota=3)
    assert [send(name) for name in "ABCD"] == [202, 202, 202, 402]
    period = BillingPeriod.objects.get(partner=api.partner)
    assert (
        period.deeds_reserved
        == Reservation.objects.filter(period=period).count()
        == Deed.objects.count()
        == 3
    )


def test_a_place_on_remembered_terms_is_one_statement(
    api: Api, send: Any, order: Orders, nothing_is_due: None, django_assert_num_queries: Any
) -> None:
    allow(api.partner, monthly_deed_quota=100, budget_cap=Decimal(1000))
    per_deed(api.partner, ("deed", 0, "10"))
    send("A")
    body = order(order_id="B")
    # The savepoint of the key's transaction and its end; lock, look; the deed, its place, the answer.
    with django_assert_num_queries(6):
        assert api.post("/v2/deeds", body, Idempotency_Key="b").status_code == 202


def test_a_lower_quota_holds_at_once(api: Api, send: Any) -> None:
    allow(api.partner, monthly_deed_quota=100)
    send("A")
    allow(api.partner, monthly_deed_quota=1)
    assert send("B") == 402
    allow(api.partner, monthly_deed_quota=2)
    assert send("B") == 202


def test_a_new_budget_holds_at_once(api: Api, send: Any) -> None:
    per_deed(api.partner, ("grant", 0, "12.50"))
    assert send("A") == 202
    # Nothing was limited, so nothing was held of the budget that comes now.
    allow(api.partner, budget_cap=Decimal("12.50"))
    assert [send("B"), send("C")] == [202, 402]


def test_the_next_version_of_a_contract_prices_the_next_order(api: Api, send: Any) -> None:
    per_deed(api.partner, ("grant", 0, "10"))
    allow(api.partner, budget_cap=Decimal(1000))
    now = timezone.now()
    send("A")
    tomorrow = (now + NEXT_DAY).date()
    per_deed(api.partner, ("grant", 0, "30"), starts_on=tomorrow)
    send("B")
    with time_machine.travel(now + NEXT_DAY):
        send("C")
    amounts = list(Reservation.objects.order_by("created_at").values_list("amount", flat=True))
    assert amounts == [Decimal(1000), Decimal(1000), Decimal(3000)]


def test_a_contract_that_ended_prices_nothing(api: Api, send: Any) -> None:
    per_deed(api.partner, ("grant", 0, "10"))
    allow(api.partner, budget_cap=Decimal(1000))
    now = timezone.now()
    send("A")
    contracts.end(Contract.objects.get(), now.date(), FINANCE, reason="They left.")
    with time_machine.travel(now + NEXT_DAY):
        send("B")
    assert [one.amount for one in Reservation.objects.order_by("created_at")] == [1000, 0]


def test_a_price_that_depends_on_the_orders_before_is_not_remembered(api: Api, send: Any) -> None:
    per_deed(api.partner, ("grant", 0, "10"), ("grant", 1, "20"))
    allow(api.partner, budget_cap=Decimal(1000))
    send("A")
    assert remembered(api) is None
    send("B")
    assert [one.amount for one in Reservation.objects.order_by("created_at")] == [1000, 2000]


def test_an_invoice_that_falls_due_stops_the_next_order(api: Api, send: Any) -> None:
    now = timezone.now()
    Invoice.objects.create(
        partner=api.partner, status="open", currency="USD", grace_ends_at=now + dt.timedelta(minutes=1)
    )
    assert send("A") == 202
    with time_machine.travel(now + dt.timedelta(minutes=2)):
        assert send("B") == 402
        assert Deed.objects.count() == Reservation.objects.count() == 1


def test_the_next_period_has_its_own_places(api: Api, send: Any) -> None:
    allow(api.partner, monthly_deed_quota=2)
    # What is remembered from it is of the period that ends, and has room.
    assert send("A") == 202
    with time_machine.travel(BillingPeriod.objects.get().ends_at):
        assert [send("B"), send("C"), send("D")] == [202, 202, 402]
    assert [period.deeds_reserved for period in BillingPeriod.objects.order_by("starts_at")] == [1, 2]


def test_what_was_made_counts_as_what_is_being_made(api: Api, send: Any, main_api: MainApi) -> None:
    per_deed(api.partner, ("grant", 0, "10"))
    allow(api.partner, monthly_deed_quota=2, budget_cap=Decimal(1000))
    assert send("A") == 202
    tasks.serve(str(Deed.objects.get().pk))
    assert [send("B"), send("C")] == [202, 402]
    allow(api.partner, monthly_deed_quota=100, budget_cap=Decimal(30))
    assert [send("C"), send("D")] == [202, 402], "nor is the price of one that was made forgotten"


def test_everybody_finds_the_same_version_in_force(api: Api) -> None:
    """In the database by a query and by the statement that takes places, and among rows that were read."""
    versions = [
        (dt.date(2031, 2, 3), dt.date(2031, 2, 20), None),
        (dt.date(2031, 2, 7), dt.date(2031, 2, 10), None),
        (dt.date(2031, 2, 9), None, timezone.now()),
        (dt.date(2031, 2, 14), dt.date(2031, 2, 14), None),
        (dt.date(2031, 2, 22), None, None),
    ]
    for number, (starts_on, ends_on, withdrawn_at) in enumerate(versions):
        Contract.objects.create(
            partner=api.partner,
            version=number + 1,
            model="per_deed",
            starts_on=starts_on,
            ends_on=ends_on,
            withdrawn_at=withdrawn_at,
        )
    period = periods.at(api.partner, dt.datetime(2031, 2, 1, tzinfo=dt.UTC))

    def takes(contract_id: Any, moment: dt.datetime) -> bool:
        terms = places.Terms(
            period_id=period.pk,
            ends_at=period.ends_at,
            quota=None,
            cap=None,
            contract_id=contract_id,
            is_free=False,
            is_hard=True,
            deeds=None,
            money=None,
            item="grant",
            amount=Decimal(0),
        )
        return places.take(terms, uuid.uuid4(), now=moment) is not None

    everybody = [None, *Contract.objects.values_list("pk", flat=True)]
    for day in range(1, 29):
        moment = dt.datetime(2031, 2, day, 12, tzinfo=dt.UTC)
        found = Contract.objects.in_force(api.partner.pk, moment.date())
        assert in_force_of(Contract.objects.standing(), moment.date()) == found
        assert [pk for pk in everybody if takes(pk, moment)] == [found.pk if found else None]


def test_a_period_that_was_removed_is_made_again(api: Api, send: Any) -> None:
    send("A")
    Reservation.objects.all().delete()
    BillingPeriod.objects.all().delete()
    assert send("B") == 202
    assert BillingPeriod.objects.get().deeds_reserved == 1


def test_what_is_remembered_is_bounded(api: Api, send: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    send("A")
    terms = remembered(api)
    assert terms is not None
    monkeypatch.setattr(places, "_MOST", 10)
    for _ in range(50):
        places.remember((Deed().pk, "grant", False), terms)
    assert len(places._remembered) <= 10


def test_requests_count_in_the_period_of_their_hour(api: Api, stranger: Api) -> None:
    now = timezone.now()
    requests_quota.count({(api.partner.pk, now): 1})
    first = BillingPeriod.objects.get(partner=api.partner)
    in_next = first.ends_at + dt.timedelta(hours=1)
    # Two hours of one period, one of a period that is not made yet, and another partner's.
    with time_machine.travel(in_next):
        requests_quota.count(
            {
                (api.partner.pk, first.starts_at): 2,
                (api.partner.pk, first.ends_at - dt.timedelta(seconds=1)): 4,
                (api.partner.pk, in_next): 8,
                (stranger.partner.pk, now): 16,
            }
        )
    counted = {
        (period.partner_id, period.starts_at): period.requests_used for period in BillingPeriod.objects.all()
    }
    assert counted == {
        (api.partner.pk, first.starts_at): 7,
        (api.partner.pk, first.ends_at): 8,
        (stranger.partner.pk, first.starts_at): 16,
    }


def test_counting_locks_no_period_a_second_time_when_there_is_nothing_to_tell(
    api: Api, django_assert_num_queries: Any
) -> None:
    allow(api.partner, monthly_request_quota=10)
    now = timezone.now()
    requests_quota.count({(api.partner.pk, now): 1})
    with django_assert_num_queries(1):
        requests_quota.count({(api.partner.pk, now): 1})
    requests_quota.count({(api.partner.pk, now): 3})
    assert BillingPeriod.objects.get().told == ["requests:50"]


def test_requests_of_a_closed_period_count_in_the_next(api: Api) -> None:
    now = timezone.now()
    requests_quota.count({(api.partner.pk, now): 1})
    BillingPeriod.objects.update(closed_at=now)
    requests_quota.count({(api.partner.pk, now): 5})
    assert [period.requests_used for period in BillingPeriod.objects.order_by("starts_at")] == [1, 5]


def test_a_partner_that_is_gone_is_passed_over(api: Api) -> None:
    requests_quota.count({(Deed().pk, timezone.now()): 5})
    assert not BillingPeriod.objects.exists()


def test_requests_of_a_clock_that_is_wrong_count_where_they_are_billed(api: Api) -> None:
    now = timezone.now()
    first = periods.at(api.partner, now)
    years = dt.timedelta(days=1500)
    requests_quota.count({(api.partner.pk, now - years): 1, (api.partner.pk, now + years): 2})
    with time_machine.travel(first.ends_at + dt.timedelta(days=1)):
        assert invoicing.close_ended(now=timezone.now()) == 1
        requests_quota.count({(api.partner.pk, first.starts_at): 4, (api.partner.pk, now - years): 8})
    used = BillingPeriod.objects.filter(partner=api.partner).order_by("starts_at")
    assert [(period.starts_at, period.requests_used) for period in used] == [
        (first.starts_at, 1 + 2),
        (first.ends_at, 4 + 8),
    ]


def test_what_is_dated_before_a_closed_period_is_charged_in_the_open_one(acme: Partner) -> None:
    now = timezone.now()
    first = periods.at(acme, now)
    with time_machine.travel(first.ends_at + dt.timedelta(days=1)):
        invoicing.close_ended(now=timezone.now())
        with transaction.atomic():
            period = periods.open_at(acme, first.starts_at - dt.timedelta(days=40))
    assert period.starts_at == first.ends_at
    assert acme.billing_periods.count() == 2
