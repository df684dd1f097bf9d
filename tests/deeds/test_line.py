"""Whose deed is made next; and that it costs the same however many are queued."""

import datetime as dt
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uuid_utils.compat
from django.db import connection
from django.utils import timezone

from deeds import backlog, fulfilment, hints, line, sweeping
from deeds.models import Deed
from keys.models import Partner
from tests.api import Api
from tests.conftest import MainApi

Orders = Callable[..., dict[str, Any]]

MANY = 100_000

_FILL = """
INSERT INTO external_deeds (id, partner_id, livemode, order_id, deed_type, "order", order_sha256, warnings,
  source, request_id, status, timeline, created_at, next_attempt_at, hinted_at, is_bulk, put_back_for,
  attempts, crashes, failure_code, failure_message, failure_retryable, failure_errors, pdf_name, pdf_sha256,
  hold_reason)
SELECT gen_random_uuid(), %s, true, %s || number, 'grant', '{}', '', '[]',
  'v2', 'r', 'queued', '[]', now(), %s - interval '1 hour' + number * interval '1 ms', now(), %s, '',
  0, 0, '', '', false, '[]', '', '', ''
FROM generate_series(1, %s) AS number
"""


def fill(partner: Partner, number: int, *, is_bulk: bool = False, prefix: str = "MANY-") -> None:
    with connection.cursor() as cursor:
        cursor.execute(_FILL, [partner.pk, prefix, timezone.now(), is_bulk, number])


def served(modes: tuple[bool, ...] = (True, False), *, is_bulk: bool = False) -> Deed | None:
    claimed = line.claim_next(is_bulk=is_bulk, modes=modes, now=timezone.now())
    return claimed[0] if claimed else None


@pytest.fixture
def partners(acme: Partner) -> list[Partner]:
    return [acme, *(Partner.objects.create(name=f"Partner {number}") for number in range(4))]


def test_it_works(api: Api, order: Orders) -> None:
    deed_id = api.post("/v2/deeds", order()).json()["id"]
    claimed = line.claim_next(is_bulk=False, modes=[True, False], now=timezone.now())
    assert claimed is not None
    deed, lease = claimed
    assert (str(deed.pk), deed.status, deed.lease, deed.attempts) == (deed_id, "rendering", lease, 1)
    assert deed.timeline[-1]["status"] == "rendering"
    stored = Deed.objects.get(pk=deed_id)
    assert (stored.lease, stored.claimed_at) == (lease, deed.claimed_at)
    assert served() is None, "nobody else gets it"


def test_ten_thousand_orders_of_one_partner_do_not_delay_anothers_one(partners: list[Partner]) -> None:
    fill(partners[0], 10_000)
    assert [served() is not None for _ in range(5)] == [True] * 5
    fill(partners[1], 1, prefix="ONE-")
    before = 0
    while True:
        deed = served()
        assert deed is not None
        if deed.partner_id == partners[1].pk:
            break
        before += 1
    assert before <= 1


def test_partners_take_turns_whatever_they_have_queued(partners: list[Partner]) -> None:
    for number, partner in enumerate(partners):
        fill(partner, 3 + number * 50)
    turns = [deed.partner_id for _ in range(15) if (deed := served())]
    for start in (0, 5, 10):
        assert len(set(turns[start : start + 5])) == 5


def test_the_oldest_of_a_line_goes_first(partners: list[Partner]) -> None:
    fill(partners[0], 5)
    assert [deed.order_id for _ in range(5) if (deed := served())] == [f"MANY-{n}" for n in range(1, 6)]


def test_live_goes_before_test(acme: Partner, order: Orders) -> None:
    Api.of(acme, environment="test").post("/v2/deeds", order())
    Api.of(acme).post("/v2/deeds", order())
    assert [deed.livemode for _ in range(2) if (deed := served())] == [True, False]


def test_what_is_not_due_or_of_a_closed_mode_waits(acme: Partner, order: Orders) -> None:
    Api.of(acme).post("/v2/deeds", order())
    assert served((False,)) is None
    assert served(()) is None
    Deed.objects.update(next_attempt_at=timezone.now() + dt.timedelta(seconds=60))
    assert served() is None


def test_a_probe_takes_what_is_not_due_and_costs_no_attempt(acme: Partner, order: Orders) -> None:
    Api.of(acme).post("/v2/deeds", order())
    Deed.objects.update(next_attempt_at=timezone.now() + dt.timedelta(hours=8))
    claimed = line.claim_next(is_bulk=False, modes=[True], now=timezone.now(), is_probe=True)
    assert claimed is not None
    assert claimed[0].attempts == 0


def test_a_batch_waits_in_a_line_of_its_own(api: Api, order: Orders, acme: Partner) -> None:
    api.post("/v2/deeds/batch", {"orders": [order(order_id="B-1")]})
    api.post("/v2/deeds", order(order_id="S-1"))
    first, second = served(), served(is_bulk=True)
    assert first is not None
    assert second is not None
    assert (first.order_id, second.order_id) == ("S-1", "B-1")
    assert served() is None


def test_a_message_serves_whose_turn_it_is(api: Api, stranger: Api, order: Orders, main_api: MainApi) -> None:
    first = [api.post("/v2/deeds", order(order_id=f"A-{n}")).json()["id"] for n in range(3)]
    other = stranger.post("/v2/deeds", order(order_id="B")).json()["id"]
    assert fulfilment.serve(is_bulk=False, hinted=uuid.UUID(first[0]))
    assert fulfilment.serve(is_bulk=False, hinted=uuid.UUID(first[1]))
    completed = set(Deed.objects.filter(status="completed").values_list("pk", flat=True))
    assert completed == {uuid.UUID(first[0]), uuid.UUID(other)}


def test_test_deeds_that_never_end_leave_a_worker_to_live_ones(
    acme: Partner,
    order: Orders,
    settings: Any,
    main_api: MainApi,
    monkeypatch: pytest.MonkeyPatch,
    transactional_db: None,
) -> None:
    settings.DEED_TEST_AT_ONCE = 2
    sent: list[str] = []
    monkeypatch.setattr(hints, "send", sent.append)
    tester, renders = Api.of(acme, environment="test"), main_api.answer
    ids = [tester.post("/v2/deeds", order(order_id=f"T-{n}")).json()["id"] for n in range(4)]
    under_way, may_end = threading.Semaphore(0), threading.Event()

    def hangs(environ: Any, start_response: Any) -> Any:
        if environ["HTTP_X_ORDER_ID"].startswith("T"):
            under_way.release()
            may_end.wait(20)
        return renders(environ, start_response)

    def work(deed_id: str) -> None:
        try:
            fulfilment.serve(is_bulk=False, hinted=uuid.UUID(deed_id))
        finally:
            connection.close()

    main_api.answer = hangs
    workers = [threading.Thread(target=work, args=[deed_id]) for deed_id in ids[:2]]
    for worker in workers:
        worker.start()
        assert under_way.acquire(timeout=10)
    for deed_id in ids[2:]:
        assert not fulfilment.serve(is_bulk=False, hinted=uuid.UUID(deed_id)), "no place is left for it"
    live = Api.of(acme).post("/v2/deeds", order(order_id="LIVE")).json()["id"]
    assert fulfilment.serve(is_bulk=False, hinted=uuid.UUID(live))
    assert Deed.objects.get(pk=live).status == "completed"
    assert Deed.objects.filter(status="queued", hinted_at=None).count() == 2, "their messages are used up"
    sent.clear()
    may_end.set()
    for worker in workers:
        worker.join(20)
    assert sorted(sent) == sorted(ids[2:]), "who ends hints at those who found no place"
    for deed_id in ids[2:]:
        assert fulfilment.serve(is_bulk=False, hinted=uuid.UUID(deed_id))
    assert set(Deed.objects.values_list("status", flat=True)) == {"completed"}


def test_a_batch_goes_to_the_queue_of_batches(
    api: Api, order: Orders, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    sent: list[tuple[str, str | None]] = []
    monkeypatch.setattr(
        "celery.app.base.Celery.send_task",
        lambda self, name, args, kwargs, queue=None: sent.append((name, queue)),
    )
    with django_capture_on_commit_callbacks(execute=True):
        api.post("/v2/deeds/batch", {"orders": [order(order_id="B-1")]})
        api.post("/v2/deeds", order(order_id="S-1"))
    assert sent == [("deeds.tasks.serve_bulk", "deeds-bulk"), ("deeds.tasks.serve", None)]


@pytest.fixture
def a_hundred_thousand(db: None, partners: list[Partner]) -> None:
    for partner in partners:
        fill(partner, MANY // len(partners))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE external_deeds")


def plan(sql: str, parameters: Any = None) -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", parameters)
        found = cursor.fetchone()[0]
    explained: dict[str, Any] = (json.loads(found) if isinstance(found, str) else found)[0]
    return explained


def scans(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if node.get("Relation Name") == "external_deeds" and node["Node Type"] != "ModifyTable":
        yield node
    for child in node.get("Plans", []):
        yield from scans(child)


def test_a_claim_and_a_sweep_cost_the_same_with_a_hundred_thousand_queued(
    a_hundred_thousand: None, acme: Partner
) -> None:
    now = timezone.now()
    parameters = line.claim_parameters(
        is_bulk=False, modes=[True, False], now=now, lease=uuid_utils.compat.uuid7(), is_probe=False
    )
    claim = plan(line.CLAIM_SQL, parameters)
    looked = list(scans(claim["Plan"]))
    assert looked
    for scan in looked:
        assert scan["Node Type"] in {"Index Scan", "Index Only Scan"}, scan
        assert scan["Actual Rows"] <= 1, "it hops, and never walks along a line"
    for query in (
        sweeping.unhinted(now, livemode=True, is_bulk=False).query,
        sweeping.long_hinted(now, livemode=True, is_bulk=False).query,
        Deed.objects.abandoned(now).order_by("lease_expires_at")[:500].query,
    ):
        sql, given = query.sql_with_params()
        for scan in scans(plan(sql, given)["Plan"]):
            assert scan["Node Type"] in {"Index Scan", "Index Only Scan"}, scan
    started = time.perf_counter()
    for _ in range(20):
        assert served() is not None
    assert (time.perf_counter() - started) / 20 < 0.05


def test_a_partner_may_not_queue_without_bound(
    api: Api, stranger: Api, order: Orders, settings: Any, acme: Partner
) -> None:
    settings.DEED_MAX_QUEUED_PER_PARTNER = 3
    for number in range(3):
        assert api.post("/v2/deeds", order(order_id=f"Q-{number}")).status_code == 202
    refused = api.post("/v2/deeds", order(order_id="Q-3"))
    assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
    assert int(refused["Retry-After"]) > 0
    assert api.post("/v2/deeds", order(order_id="Q-0")).status_code == 200, "it is queued already"
    assert stranger.post("/v2/deeds", order()).status_code == 202
    assert Deed.objects.filter(partner=acme).count() == 3


def test_a_batch_takes_what_there_is_room_for(api: Api, order: Orders, settings: Any, acme: Partner) -> None:
    settings.DEED_MAX_QUEUED_PER_PARTNER = 3
    assert api.post("/v2/deeds", order(order_id="B-1")).status_code == 202
    orders = [order(order_id=f"B-{number}") for number in range(5)]
    results = api.post("/v2/deeds/batch", {"orders": orders}).json()["data"]
    assert sorted(result["status"] for result in results) == [200, 202, 202, 429, 429]
    (one_more,) = api.post("/v2/deeds/batch", {"orders": [order(order_id="B-9")]}).json()["data"]
    assert one_more["status"] == 429, "the batch counts as well"
    assert Deed.objects.filter(partner=acme).count() == 3


def test_room_comes_back_as_deeds_are_made(
    api: Api, order: Orders, settings: Any, main_api: MainApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DEED_MAX_QUEUED_PER_PARTNER = 1
    monkeypatch.setattr(backlog, "COUNT_EVERY_SECONDS", -1.0)
    monkeypatch.setattr(hints, "send", lambda deed_id: None)
    assert api.post("/v2/deeds", order(order_id="1")).status_code == 202
    assert api.post("/v2/deeds", order(order_id="2")).status_code == 429
    assert fulfilment.serve(is_bulk=False)
    assert api.post("/v2/deeds", order(order_id="2")).status_code == 202
