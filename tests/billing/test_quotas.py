"""What fits in a quota and a budget is accepted, and not one more; a deed not made gives its place back."""

import datetime as dt
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.db import connection, transaction
from django.utils import timezone

from billing import contracts, quotas
from billing.models import BillingPeriod, Invoice, LedgerEntry, Reservation
from billing.signals import quota_exceeded, quota_threshold_reached
from deeds import hints, ordering, sweeping, tasks
from deeds.models import Deed
from keys import audit
from keys.models import Partner
from tests.api import Api
from tests.conftest import MainApi
from tests.deeds.kept import claim
from webhooks.models import Event

Orders = Callable[..., dict[str, Any]]
FINANCE = audit.Actor("staff", "finance")


@pytest.fixture
def told() -> Any:
    """What the other apps were told: quota, percent, and whether within a transaction."""
    news: list[tuple[str, str, int]] = []

    def reached(quota: str, percent: int, **_: Any) -> None:
        assert connection.in_atomic_block
        news.append(("reached", quota, percent))

    def exceeded(quota: str, percent: int, **_: Any) -> None:
        assert connection.in_atomic_block
        news.append(("exceeded", quota, percent))

    quota_threshold_reached.connect(reached)
    quota_exceeded.connect(exceeded)
    yield news
    quota_threshold_reached.disconnect(reached)
    quota_exceeded.disconnect(exceeded)


def allow(partner: Partner, **limits: Any) -> None:
    Partner.objects.filter(pk=partner.pk).update(**limits)


def per_deed(partner: Partner, *prices: tuple[str, int, str], **terms: Any) -> None:
    today = timezone.now().date()
    rows = [(item, after, Decimal(price)) for item, after, price in prices]
    contracts.agree(
        partner, {"model": "per_deed", "starts_on": today, "base_fee": Decimal(0), **terms}, rows, FINANCE
    )


def period_of(partner: Partner) -> BillingPeriod:
    return BillingPeriod.objects.get(partner=partner)


def run(deed_id: str) -> Deed:
    tasks.serve(deed_id)
    return Deed.objects.get(pk=deed_id)


def test_it_works(api: Api, order: Orders, main_api: MainApi) -> None:
    allow(api.partner, monthly_deed_quota=2)
    answer = api.post("/v2/deeds", order())
    assert answer.status_code == 202
    period = period_of(api.partner)
    assert (period.deeds_used, period.deeds_reserved) == (0, 1)
    assert answer["X-Quota-Limit"] == "2"
    assert answer["X-Quota-Remaining"] == "1"
    assert answer["X-Quota-Reset"] == str(int(period.ends_at.timestamp()))
    run(answer.json()["id"])
    period.refresh_from_db()
    assert (period.deeds_used, period.deeds_reserved) == (1, 0)
    assert not Reservation.objects.exists()


def test_what_is_over_is_refused_and_told_what_to_do(api: Api, order: Orders, told: Any) -> None:
    allow(api.partner, monthly_deed_quota=1)
    api.post("/v2/deeds", order(order_id="A"))
    answer = api.post("/v2/deeds", order(order_id="B"))
    assert answer.status_code == 402
    problem = answer.json()
    assert problem["code"] == "quota_exceeded"
    assert (problem["limit"], problem["used"]) == (1, 1)
    assert dt.datetime.fromisoformat(problem["resets_at"]) == period_of(api.partner).ends_at
    assert answer["X-Quota-Remaining"] == "0"
    assert Deed.objects.count() == 1
    assert ("exceeded", "deeds", 100) in told
    api.post("/v2/deeds", order(order_id="C"))
    assert told.count(("exceeded", "deeds", 100)) == 1


def test_a_quota_of_none_at_all(api: Api, order: Orders) -> None:
    allow(api.partner, monthly_deed_quota=0)
    assert api.post("/v2/deeds", order()).json()["code"] == "quota_exceeded"
    assert not Deed.objects.exists()


def test_the_same_order_again_takes_one_place(api: Api, order: Orders) -> None:
    allow(api.partner, monthly_deed_quota=1)
    assert api.post("/v2/deeds", order()).status_code == 202
    assert api.post("/v2/deeds", order()).status_code == 200
    assert api.post("/v2/deeds", order(execution_date="2026-01-01")).status_code == 409
    assert period_of(api.partner).deeds_reserved == 1


def test_a_test_order_takes_none(acme: Partner, order: Orders, main_api: MainApi) -> None:
    allow(acme, monthly_deed_quota=0, budget_cap=Decimal(0))
    api = Api.of(acme, environment="test")
    answer, again = (api.post("/v2/deeds", order()) for _ in range(2))
    assert (answer.status_code, again.status_code) == (202, 200)
    assert not any("X-Quota-Limit" in each for each in (answer, again))
    assert run(answer.json()["id"]).status == "completed"
    assert not LedgerEntry.objects.exists()
    assert not BillingPeriod.objects.exists()


def test_another_partner_has_a_quota_of_its_own(api: Api, stranger: Api, order: Orders) -> None:
    allow(api.partner, monthly_deed_quota=0)
    assert stranger.post("/v2/deeds", order()).status_code == 202


@pytest.mark.parametrize("order_id", ["sandbox-400", "cancelled"])
def test_a_deed_that_is_not_made_gives_its_place_back(
    api: Api, order: Orders, main_api: MainApi, order_id: str
) -> None:
    allow(api.partner, monthly_deed_quota=1)
    deed_id = api.post("/v2/deeds", order(order_id=order_id)).json()["id"]
    if order_id == "cancelled":
        assert api.post(f"/v2/deeds/{deed_id}/cancel").status_code == 200
    else:
        assert run(deed_id).status == "failed"
    period = period_of(api.partner)
    assert (period.deeds_used, period.deeds_reserved, period.money_used) == (0, 0, Decimal(0))
    assert not LedgerEntry.objects.exists()
    assert api.post("/v2/deeds", order(order_id="next")).status_code == 202


def test_a_poisonous_deed_gives_its_place_back(api: Api, order: Orders, settings: Any) -> None:
    settings.DEED_MAX_CRASHES = 1
    allow(api.partner, monthly_deed_quota=1)
    deed = Deed.objects.get(pk=api.post("/v2/deeds", order()).json()["id"])
    claim(deed)
    Deed.objects.update(lease_expires_at=timezone.now())
    sweeping.sweep()
    deed.refresh_from_db()
    assert deed.status == "failed"
    assert period_of(api.partner).deeds_reserved == 0


def test_a_deed_queued_again_by_staff_takes_a_place_again(api: Api, order: Orders, main_api: MainApi) -> None:
    allow(api.partner, monthly_deed_quota=1)
    deed = run(api.post("/v2/deeds", order(order_id="sandbox-400")).json()["id"])
    assert ordering.requeue(deed)
    assert period_of(api.partner).deeds_reserved == 1
    assert api.post("/v2/deeds", order(order_id="next")).status_code == 402


def test_a_test_deed_queued_again_by_staff_takes_none(
    acme: Partner, order: Orders, main_api: MainApi
) -> None:
    tests = Api.of(acme, environment="test")
    deed = run(tests.post("/v2/deeds", order(order_id="sandbox-400")).json()["id"])
    assert ordering.requeue(deed)
    assert not Reservation.objects.exists()


def test_a_deed_queued_again_by_staff_holds_its_price_again(
    api: Api, order: Orders, main_api: MainApi
) -> None:
    per_deed(api.partner, ("grant", 0, "10"))
    allow(api.partner, budget_cap=Decimal(15))
    deed = run(api.post("/v2/deeds", order(order_id="sandbox-400")).json()["id"])
    assert ordering.requeue(deed)
    assert period_of(api.partner).money_reserved == Reservation.objects.get().amount == Decimal(1000)
    assert api.post("/v2/deeds", order(order_id="next")).json()["code"] == "budget_exceeded"


def test_a_place_whose_order_has_ended_unseen_is_given_back(api: Api, order: Orders, settings: Any) -> None:
    settings.RESERVATION_STALE_SECONDS = 60
    names = ("rendering", "gone", "waiting")
    ids = [api.post("/v2/deeds", order(order_id=name)).json()["id"] for name in names]
    claim(Deed.objects.get(pk=ids[0]))
    Deed.objects.filter(pk=ids[0]).update(lease_expires_at=timezone.now() + dt.timedelta(hours=1))
    Deed.objects.filter(pk=ids[1]).update(status="cancelled")
    sweeping.sweep()
    assert period_of(api.partner).deeds_reserved == 3, "it is too young to be looked at"
    with time_machine.travel(timezone.now() + dt.timedelta(seconds=61)):
        assert sweeping.sweep()["released"] == 1
        assert sweeping.sweep()["released"] == 0
    assert period_of(api.partner).deeds_reserved == 2
    assert {str(pk) for pk in Reservation.objects.values_list("pk", flat=True)} == {ids[0], ids[2]}


def test_giving_back_twice_gives_back_once(api: Api, order: Orders) -> None:
    first, _ = (api.post("/v2/deeds", order(order_id=name)).json()["id"] for name in "AB")
    assert quotas.release(uuid.UUID(first)) is not None
    assert quotas.release(uuid.UUID(first)) is None
    assert period_of(api.partner).deeds_reserved == 1


def test_a_batch_is_accepted_as_far_as_it_fits(
    api: Api,
    order: Orders,
    told: Any,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Any,
) -> None:
    hinted: list[str] = []
    monkeypatch.setattr(hints, "send_bulk", hinted.append)
    allow(api.partner, monthly_deed_quota=3)
    orders = [order(order_id=f"B-{number}") for number in (1, 2, 2, 3, 4, 4)]
    with django_capture_on_commit_callbacks(execute=True):
        results = api.post("/v2/deeds/batch", {"orders": orders}).json()["data"]
    assert [result["status"] for result in results] == [202, 202, 200, 202, 402, 402]
    assert results[4]["problem"]["code"] == "quota_exceeded"
    assert sorted(hinted) == sorted(str(pk) for pk in Deed.objects.values_list("pk", flat=True))
    assert Reservation.objects.count() == period_of(api.partner).deeds_reserved == len(hinted) == 3
    assert told.count(("exceeded", "deeds", 100)) == 1


def test_a_batch_is_accepted_as_far_as_the_budget_goes(api: Api, order: Orders) -> None:
    per_deed(api.partner, ("grant", 0, "10"), ("tax", 0, "4"))
    allow(api.partner, budget_cap=Decimal(24))
    orders = [order("grant", order_id=f"B-{number}") for number in range(3)] + [order("tax", order_id="T-1")]
    answer = api.post("/v2/deeds/batch", {"orders": orders})
    assert [result["status"] for result in answer.json()["data"]] == [202, 202, 402, 202]
    assert answer.json()["data"][2]["problem"]["code"] == "budget_exceeded"
    assert period_of(api.partner).money_reserved == Decimal(2400)


def test_each_order_of_a_batch_has_the_price_of_its_place(api: Api, order: Orders) -> None:
    per_deed(api.partner, ("grant", 0, "0"), ("grant", 2, "10"))
    allow(api.partner, budget_cap=Decimal(10))
    orders = [order(order_id=f"B-{number}") for number in range(4)]
    answer = api.post("/v2/deeds/batch", {"orders": orders})
    assert [result["status"] for result in answer.json()["data"]] == [202, 202, 202, 402]
    assert period_of(api.partner).money_reserved == Decimal(1000)


def test_a_soft_quota_holds_no_batch_back(api: Api, order: Orders) -> None:
    per_deed(api.partner, ("deed", 0, "10.00"), quota_mode="soft")
    allow(api.partner, monthly_deed_quota=1, budget_cap=Decimal("10.00"))
    orders = [order(order_id=f"S-{number}") for number in range(3)]
    answer = api.post("/v2/deeds/batch", {"orders": orders})
    assert [result["status"] for result in answer.json()["data"]] == [202] * 3


def test_a_soft_quota_tells_and_accepts(api: Api, order: Orders, told: Any) -> None:
    per_deed(api.partner, ("deed", 0, "10.00"), quota_mode="soft")
    allow(api.partner, monthly_deed_quota=1, budget_cap=Decimal("10.00"))
    for name in "ABC":
        assert api.post("/v2/deeds", order(order_id=name)).status_code == 202
    assert told.count(("reached", "deeds", 100)) == 1
    assert told.count(("reached", "budget", 100)) == 1
    assert not [kind for kind, _, _ in told if kind == "exceeded"]


def test_a_first_order_that_uses_up_all_is_told_of(api: Api, order: Orders, told: Any) -> None:
    allow(api.partner, monthly_deed_quota=1)
    assert api.post("/v2/deeds", order()).status_code == 202
    assert [(kind, percent) for kind, _, percent in told] == [
        ("reached", percent) for percent in (50, 80, 100)
    ]


def test_each_threshold_is_told_once_a_period(api: Api, order: Orders, told: Any) -> None:
    allow(api.partner, monthly_deed_quota=10)
    for number in range(10):
        api.post("/v2/deeds", order(order_id=f"T-{number}"))
        levels = [percent for _, _, percent in told]
        used = number + 1
        assert levels == [percent for percent in (50, 80, 100) if used * 10 >= percent]
    deed_id = Deed.objects.first()
    assert deed_id is not None
    api.post(f"/v2/deeds/{deed_id.pk}/cancel")
    api.post("/v2/deeds", order(order_id="again"))
    assert len(told) == 3
    with time_machine.travel(period_of(api.partner).ends_at + dt.timedelta(hours=1)):
        for number in range(5):
            api.post("/v2/deeds", order(order_id=f"N-{number}"))
    assert [percent for _, _, percent in told] == [50, 80, 100, 50]


def test_a_budget_holds_the_price_until_the_deed_is_made(
    api: Api, order: Orders, main_api: MainApi, told: Any
) -> None:
    per_deed(api.partner, ("grant", 0, "12.50"), ("tax", 0, "5.00"))
    allow(api.partner, budget_cap=Decimal("30.00"))
    first = api.post("/v2/deeds", order(order_id="A")).json()["id"]
    assert api.post("/v2/deeds", order(order_id="B")).status_code == 202
    answer = api.post("/v2/deeds", order("grant", order_id="C"))
    assert answer.status_code == 402
    problem = answer.json()
    assert problem["code"] == "budget_exceeded"
    assert (problem["limit"], problem["used"], problem["currency"]) == ("30", "25", "USD")
    assert api.post("/v2/deeds", order("tax", order_id="D")).status_code == 202
    run(first)
    period = period_of(api.partner)
    assert (period.money_used, period.money_reserved) == (Decimal(1250), Decimal(1750))
    assert ("exceeded", "budget", 100) in told


def test_a_correction_holds_the_price_agreed_for_it(api: Api, order: Orders, main_api: MainApi) -> None:
    per_deed(api.partner, ("grant", 0, "10"), ("reissue", 0, "4"))
    allow(api.partner, budget_cap=Decimal(1000))
    first = api.post("/v2/deeds", order(order_id="A")).json()["id"]
    api.post("/v2/deeds", order(order_id="B"))
    run(first)
    assert api.post("/v2/deeds", order(order_id="A", reissue_of=first, vesting="a widow")).status_code == 202
    api.post("/v2/deeds", order(order_id="C"))
    amounts = list(Reservation.objects.order_by("created_at").values_list("item", "amount"))
    assert amounts == [("grant", Decimal(1000)), ("reissue", Decimal(400)), ("grant", Decimal(1000))]


def test_a_deed_that_is_cancelled_gives_its_price_back(api: Api, order: Orders) -> None:
    per_deed(api.partner, ("grant", 0, "10"))
    allow(api.partner, budget_cap=Decimal(10))
    deed_id = api.post("/v2/deeds", order(order_id="A")).json()["id"]
    assert api.post("/v2/deeds", order(order_id="B")).status_code == 402
    api.post(f"/v2/deeds/{deed_id}/cancel")
    assert api.post("/v2/deeds", order(order_id="B")).status_code == 202


def test_what_was_made_uses_up_what_is_included(api: Api, order: Orders, main_api: MainApi) -> None:
    per_deed(api.partner, ("grant", 0, "0"), ("grant", 2, "12.50"))
    allow(api.partner, budget_cap=Decimal("12.50"))
    for name in "AB":
        run(api.post("/v2/deeds", order(order_id=name)).json()["id"])
    statuses = [api.post("/v2/deeds", order(order_id=name)).status_code for name in "CD"]
    assert statuses == [202, 402]


def test_what_is_included_takes_nothing_of_the_budget(api: Api, order: Orders) -> None:
    per_deed(api.partner, ("grant", 0, "0"), ("grant", 2, "12.50"))
    allow(api.partner, budget_cap=Decimal("12.50"))
    statuses = [api.post("/v2/deeds", order(order_id=name)).status_code for name in "ABCD"]
    assert statuses == [202, 202, 202, 402]


def test_more_for_this_period_only(api: Api, order: Orders) -> None:
    allow(api.partner, monthly_deed_quota=1)
    api.post("/v2/deeds", order(order_id="A"))
    BillingPeriod.objects.update(extra_deeds=1)
    answer = api.post("/v2/deeds", order(order_id="B"))
    assert answer.status_code == 202
    assert answer["X-Quota-Limit"] == "2"
    assert api.post("/v2/deeds", order(order_id="C")).json()["limit"] == 2
    with time_machine.travel(period_of(api.partner).ends_at + dt.timedelta(hours=1)):
        assert api.post("/v2/deeds", order(order_id="D")).status_code == 202
        assert api.post("/v2/deeds", order(order_id="E")).json()["limit"] == 1


def test_an_overdue_invoice_stops_orders_after_its_grace(api: Api, order: Orders) -> None:
    now = timezone.now()
    invoice = Invoice.objects.create(
        partner=api.partner,
        status="open",
        currency="USD",
        number="INV-7",
        due_at=now - dt.timedelta(days=3),
        grace_ends_at=now + dt.timedelta(days=1),
    )
    assert api.post("/v2/deeds", order(order_id="A")).status_code == 202
    with time_machine.travel(now + dt.timedelta(days=1, seconds=1)):
        answer = api.post("/v2/deeds", order(order_id="B"))
        assert answer.status_code == 402
        assert answer.json()["code"] == "payment_required"
        assert answer.json()["invoice"] == str(invoice.pk)
        assert "INV-7" in answer.json()["detail"]
        batch = api.post("/v2/deeds/batch", {"orders": [order(order_id="C")]}).json()["data"]
        assert batch[0]["problem"]["code"] == "payment_required"
        assert Deed.objects.count() == 1
        Invoice.objects.update(status="paid")
        assert api.post("/v2/deeds", order(order_id="B")).status_code == 202


def test_an_overdue_invoice_stops_no_other_partners_orders(api: Api, stranger: Api, order: Orders) -> None:
    due = timezone.now() - dt.timedelta(days=3)
    owed = {"status": "open", "currency": "USD", "due_at": due, "grace_ends_at": due}
    Invoice.objects.create(partner=stranger.partner, **owed)
    assert [api.post("/v2/deeds", order(order_id=name)).status_code for name in "AB"] == [202, 202]
    assert stranger.post("/v2/deeds", order()).json()["code"] == "payment_required"


@pytest.mark.django_db(transaction=True)
def test_of_200_orders_at_once_exactly_50_fit_and_as_many_more_as_fail(
    order: Orders, main_api: MainApi
) -> None:
    acme = Partner.objects.create(name="Acme Title", monthly_deed_quota=50)
    api = Api.of(acme)

    def send(number: int) -> tuple[int, dict[str, Any]]:
        try:
            answer = api.post("/v2/deeds", order(order_id=f"P-{number}"))
            return answer.status_code, answer.json()
        finally:
            connection.close()

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(send, range(200)))
    assert Counter(status for status, _ in answers) == {202: 50, 402: 150}
    assert {body["code"] for status, body in answers if status == 402} == {"quota_exceeded"}
    assert Deed.objects.count() == Reservation.objects.count() == 50

    for deed in Deed.objects.order_by("next_attempt_at")[:10]:
        lease = claim(deed)
        with transaction.atomic():
            failure: Any = {"code": "invalid_pdf", "message": "", "retryable": False, "errors": []}
            assert deed.fail(lease, now=timezone.now(), **failure)
            quotas.release(deed.pk)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(send, range(200, 230)))
    assert Counter(status for status, _ in answers) == {202: 10, 402: 20}
    assert BillingPeriod.objects.get().deeds_reserved == 50


@pytest.mark.django_db(transaction=True)
def test_orders_and_failures_of_one_order_at_once_do_not_stop_each_other(order: Orders) -> None:
    acme = Partner.objects.create(name="Acme Title", monthly_deed_quota=1000)
    api = Api.of(acme)

    def work(number: int) -> int:
        try:
            answer = api.post("/v2/deeds", order(order_id=f"S-{number % 4}"))
            if answer.status_code == 202:
                api.post(f"/v2/deeds/{answer.json()['id']}/cancel")
            return int(answer.status_code)
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        statuses = set(pool.map(work, range(40)))
    assert statuses <= {200, 202, 409}
    waiting = Deed.objects.filter(status="queued").count()
    assert BillingPeriod.objects.get().deeds_reserved == Reservation.objects.count() == waiting


def test_a_refusal_is_told_with_an_idempotency_key_too(api: Api, order: Orders) -> None:
    """The request's transaction is undone with the order; that the quota is exceeded stands."""
    allow(api.partner, monthly_deed_quota=1)
    api.post("/v2/deeds", order(order_id="A"))
    answer = api.post("/v2/deeds", order(order_id="B"), Idempotency_Key="b-1")
    assert (answer.status_code, answer.json()["code"]) == (402, "quota_exceeded")
    assert Event.objects.filter(type="quota.exceeded").count() == 1
    assert Deed.objects.count() == 1
