"""Orders that want the same rows at the same time wait for each other in one direction only: none is ended.

What both need in the end is held until both wait, so that each has what it takes first.
"""

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from billing.models import BillingPeriod, Reservation
from deeds import fulfilment, hints, ordering
from deeds.models import Deed
from keys.models import Partner
from tests.api import Api
from tests.conftest import MainApi

Orders = Callable[..., dict[str, Any]]
Sends = Callable[..., Future[Any]]
Body = dict[str, Any]

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def unsent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "send", lambda deed_id: None)
    monkeypatch.setattr(hints, "send_bulk", lambda deed_id: None)


@pytest.fixture
def in_turn() -> Iterator[Sends]:
    """Begins something beside this test, and returns once it waits for a lock as those before it do."""
    begun: list[Future[Any]] = []
    with ThreadPoolExecutor(2) as pool:

        def begin(what: Callable[..., Any], *args: Any) -> Future[Any]:
            def run() -> Any:
                try:
                    return what(*args)
                finally:
                    connection.close()

            begun.append(pool.submit(run))
            _until_so_many_wait(len(begun))
            return begun[-1]

        yield begin


def _until_so_many_wait(number: int) -> None:
    with connection.cursor() as cursor:
        for _ in range(500):
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND wait_event_type = 'Lock'"
            )
            if cursor.fetchone()[0] == number:
                return
            cursor.execute("SELECT pg_sleep(0.02)")
    message = f"there were never {number} that waited"
    raise AssertionError(message)


def made(api: Api, order: Orders, *order_ids: str) -> dict[str, Deed]:
    """Deeds that are completed, by their order ids."""
    for order_id in order_ids:
        assert api.post("/v2/deeds", order(order_id=order_id)).status_code == 202
    while fulfilment.serve(is_bulk=False):
        pass
    deeds = {deed.order_id: deed for deed in Deed.objects.filter(order_id__in=order_ids)}
    assert {deed.status for deed in deeds.values()} == {"completed"}
    return deeds


def send(api: Api, orders: list[Body], key: str = "") -> Any:
    """With a key of its own, as most send a batch."""
    return api.post("/v2/deeds/batch", {"orders": orders}, Idempotency_Key=key or str(uuid.uuid4()))


def _end_who_waits() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        assert cursor.fetchall() == [(True,)]


def statuses(answer: Any) -> list[int]:
    assert answer.status_code == 207, answer.content
    return [result["status"] for result in answer.json()["data"]]


@pytest.fixture
def corrected(api: Api, order: Orders, main_api: MainApi) -> Callable[[str], Body]:
    """The correction of an order's deed, which is made already."""
    deeds = made(api, order, "A", "B", "C")
    return lambda order_id: order(order_id=order_id, vesting="a widower", reissue_of=str(deeds[order_id].pk))


def test_batches_that_correct_the_same_deeds_in_another_sequence(
    api: Api, corrected: Callable[[str], Body], in_turn: Sends
) -> None:
    a, b = corrected("A"), corrected("B")
    with transaction.atomic():
        BillingPeriod.objects.select_for_update().get()
        first = in_turn(send, api, [a, b])
        second = in_turn(send, api, [b, a])
    assert statuses(first.result()) == [202, 202]
    assert statuses(second.result()) == [200, 200]
    assert Deed.objects.filter(reissue_of__isnull=False).count() == 2


def test_batches_of_test_orders_that_share_no_quota(
    acme: Partner, order: Orders, main_api: MainApi, in_turn: Sends
) -> None:
    api = Api.of(acme, environment="test")
    deeds = made(api, order, "A", "B", "C")
    a, b, c = (order(order_id=name, vesting="a widower", reissue_of=str(deeds[name].pk)) for name in "ABC")
    with transaction.atomic():
        Deed.objects.select_for_update().get(pk=deeds["B"].pk)
        first = in_turn(send, api, [a, b, c])
        second = in_turn(send, api, [c, b, a])
    assert statuses(first.result()) == [202] * 3
    assert statuses(second.result()) == [200] * 3


def test_batches_that_each_correct_what_the_other_orders(
    api: Api, order: Orders, corrected: Callable[[str], Body], in_turn: Sends
) -> None:
    orders = [corrected("A"), order(order_id="B")], [corrected("B"), order(order_id="A")]
    with transaction.atomic():
        BillingPeriod.objects.select_for_update().get()
        first = in_turn(send, api, orders[0])
        second = in_turn(send, api, orders[1])
    assert statuses(first.result()) == [202, 200]
    # By then the first one's correction stands for A, which is another body.
    assert statuses(second.result())[0] == 202
    assert Deed.objects.holding_identity().count() == 3


def test_batches_that_mix_corrections_and_new_orders(
    api: Api, order: Orders, corrected: Callable[[str], Body], in_turn: Sends
) -> None:
    new = [order(order_id="A-2"), order(order_id="C-2")]
    with transaction.atomic():
        BillingPeriod.objects.select_for_update().get()
        first = in_turn(send, api, [corrected("B"), *new])
        second = in_turn(send, api, [*reversed(new), corrected("B")])
    assert statuses(first.result()) == [202] * 3
    assert statuses(second.result()) == [200] * 3


@pytest.mark.parametrize("is_correction", [True, False], ids=["a correction", "a new order"])
def test_a_batch_and_an_order_by_itself(
    api: Api, order: Orders, corrected: Callable[[str], Body], in_turn: Sends, is_correction: bool
) -> None:
    both = corrected("B") if is_correction else order(order_id="A-2")
    with transaction.atomic():
        BillingPeriod.objects.select_for_update().get()
        batch = in_turn(send, api, [corrected("A"), both])
        alone = in_turn(api.post, "/v2/deeds", both)
    assert {*statuses(batch.result()), alone.result().status_code} <= {200, 202}
    assert Deed.objects.count() == 5


@pytest.mark.parametrize("is_correction", [True, False], ids=["a correction", "a new order"])
def test_an_order_by_itself_and_a_batch(
    api: Api, order: Orders, corrected: Callable[[str], Body], in_turn: Sends, is_correction: bool
) -> None:
    both = corrected("B") if is_correction else order(order_id="A-2")
    with transaction.atomic():
        BillingPeriod.objects.select_for_update().get()
        alone = in_turn(api.post, "/v2/deeds", both)
        batch = in_turn(send, api, [corrected("A"), both, corrected("C")])
    assert alone.result().status_code == 202
    assert statuses(batch.result()) == [202, 200, 202]
    assert Deed.objects.count() == 6


def test_staff_who_queue_a_correction_again_and_a_partner_who_corrects_it(
    api: Api, order: Orders, main_api: MainApi, in_turn: Sends
) -> None:
    """Both take the deed that stands and the correction that failed."""
    first = made(api, order, "A")["A"]
    answer = api.post("/v2/deeds", order(order_id="A", vesting="a widower", reissue_of=str(first.pk)))
    second = Deed.objects.get(pk=answer.json()["id"])
    failed = {"status": "failed", "failure_code": "invalid_pdf"}
    Deed.objects.filter(pk=second.pk).update(**failed)
    Deed.objects.filter(pk=first.pk).update(superseded_at=None)
    second.refresh_from_db()
    third = order(order_id="A", vesting="a single man", reissue_of=str(second.pk))
    with transaction.atomic():
        Deed.objects.select_for_update().get(pk=first.pk)
        queued = in_turn(ordering.requeue, second)
        replaced = in_turn(api.post, "/v2/deeds", third)
    assert queued.result()
    assert replaced.result().status_code == 409
    assert Deed.objects.holding_identity().get() == second


def test_an_order_costs_no_query_and_a_correction_two(
    nothing_is_due: None, api: Api, corrected: Callable[[str], Body], order: Orders
) -> None:
    def queries(orders: list[Body]) -> int:
        with CaptureQueriesContext(connection) as captured:
            assert set(statuses(send(api, orders))) == {202}
        return len(captured)

    queries([order(order_id="first")])
    few = queries([order(order_id=f"few-{number}") for number in range(2)])
    assert queries([order(order_id=f"many-{number}") for number in range(100)]) == few
    one = queries([corrected("A")])
    assert queries([corrected("B"), corrected("C")]) <= one + 2


def test_a_batch_that_is_cut_in_the_middle_leaves_nothing_nor_its_key(
    api: Api, order: Orders, corrected: Callable[[str], Body], in_turn: Sends
) -> None:
    """Its connection ends as that of a process that dies does, when all but its places are taken."""
    orders = [order(order_id="A-2"), corrected("A"), order(order_id="C-2")]
    with transaction.atomic():
        BillingPeriod.objects.select_for_update().get()
        cut = in_turn(send, api, orders, "k")
        again = api.post("/v2/deeds/batch", {"orders": orders}, Idempotency_Key="k")
        assert (again.status_code, again.json()["code"]) == (409, "idempotency_in_progress")
        assert int(again["Retry-After"]) >= 1
        _end_who_waits()
    assert cut.result().status_code == 503
    assert Deed.objects.count() == 3
    assert not Deed.objects.exclude(superseded_at=None).exists()
    assert statuses(api.post("/v2/deeds/batch", {"orders": orders}, Idempotency_Key="k")) == [202] * 3
    assert BillingPeriod.objects.get().deeds_reserved == Reservation.objects.count() == 3


def test_the_same_batch_at_once_without_a_key_is_made_once(
    api: Api, order: Orders, corrected: Callable[[str], Body], in_turn: Sends
) -> None:
    body = {"orders": [corrected("B"), order(order_id="A-2"), corrected("A")]}
    with transaction.atomic():
        BillingPeriod.objects.select_for_update().get()
        first = in_turn(api.post, "/v2/deeds/batch", body)
        second = in_turn(api.post, "/v2/deeds/batch", body)
    assert (statuses(first.result()), statuses(second.result())) == ([202] * 3, [200] * 3)
    assert [one["deed"]["id"] for one in first.result().json()["data"]] == [
        one["deed"]["id"] for one in second.result().json()["data"]
    ]
    assert BillingPeriod.objects.get().deeds_reserved == Reservation.objects.count() == 3
