"""`make chaos` in small: real processes are killed while partners order, and every order is counted."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from bench.chaos import verdict
from bench.chaos.clients import Record
from bench.chaos.plan import FAULTS, VICTIMS, Plan
from bench.chaos.run import run
from bench.chaos.verdict import CHECKS, Evidence
from bench.webhooks import register
from billing.models import LedgerEntry
from deeds import storage, tasks
from deeds.models import Deed, DeedAttempt
from tests.api import Api
from tests.conftest import MainApi, use_store

Orders = Callable[..., dict[str, Any]]


def test_no_order_is_lost_or_doubled_while_processes_die(
    transactional_db: None, tmp_path: Path, settings: Any
) -> None:
    """30 orders, the first 6 of them while there is no renderer; 3 kills and a storage that refuses."""
    server = os.environ["DATABASE_URL"].rpartition("/")[0]
    use_store(settings, "local.LocalStore", location=str(tmp_path / "storage"))
    plan = Plan(
        seed=5, orders=30, kills=3, clients=6, away=6, interval=0.8, limit=90, retries="1,1,1,2,2,3,3,5,5"
    )
    result = run(
        plan, tmp_path, database_url=f"{server}/{connection.settings_dict['NAME']}", say=lambda _: None
    )
    assert {name: faults for name, faults in result.faults.items() if faults} == {}
    assert len(result.faults) == len(CHECKS)
    assert result.kills == 3
    assert sum(result.outcomes.values()) == 30


def test_a_run_can_be_repeated_by_its_seed() -> None:
    assert Plan(seed=1).make_orders() == Plan(seed=1).make_orders()
    assert Plan(seed=1).make_blows() == Plan(seed=1).make_blows()
    assert Plan(seed=1).make_orders() != Plan(seed=2).make_orders()


def test_a_full_run_breaks_everything_and_asks_for_every_fault() -> None:
    plan = Plan(seed=1)
    blows = [blow.what for blow in plan.make_blows()]
    assert set(blows) == {*VICTIMS, "storage"}
    assert len([what for what in blows if what != "storage"]) == 30
    orders = plan.make_orders()
    assert len(orders) == 1000
    assert {order.fault for order in orders} == {"none", *(name for name, _, _ in FAULTS)}
    assert len({order.body["order_id"] for order in orders}) == 1000


@pytest.fixture
def seen(api: Api, order: Orders, main_api: MainApi) -> Evidence:
    """Three orders, whose deeds are as they must be: two completed, one failed as it asked for."""
    plan = Plan(seed=3, orders=3)
    ends = (("none", "completed"), ("none", "completed"), ("400", "failed"))
    orders = plan.make_orders()
    record = Record()
    for number, (fault, end) in enumerate(ends):
        object.__setattr__(orders[number], "fault", fault)
        object.__setattr__(orders[number], "ends", end)
        order_id = f"sandbox-400-C{number}" if fault == "400" else f"C-{number}"
        record.deeds[number] = api.post("/v2/deeds", order(order_id=order_id)).json()["id"]
        tasks.serve(record.deeds[number])
    return Evidence(plan, orders, record, [], "http://127.0.0.1:9", api.text, 5.0)


def found(seen: Evidence) -> set[str]:
    """The checks that find something; the one that needs a server is left out."""
    checks = [check for check in CHECKS if check is not verdict.links_lead_to_the_pdfs]
    return {check.__name__ for check in checks if check(seen)}


def test_the_judge_finds_nothing_where_nothing_is_off(seen: Evidence) -> None:
    assert found(seen) == set()


def test_the_judge_sees_a_deed_that_vanished(seen: Evidence) -> None:
    DeedAttempt.objects.filter(deed__pk=seen.record.deeds[2]).delete()
    Deed.objects.filter(pk=seen.record.deeds[2]).delete()
    assert found(seen) == {"no_accepted_order_is_lost"}


def test_the_judge_sees_a_second_deed_of_an_order(seen: Evidence) -> None:
    again = Deed.objects.get(pk=seen.record.deeds[0])
    Deed.objects.filter(pk=again.pk).update(superseded_at=again.created_at)
    Deed(
        **{
            name: getattr(again, name)
            for name in ("partner", "api_key", "livemode", "order_id", "deed_type", "order", "order_sha256")
        }
    ).save()
    assert found(seen) == {"no_order_is_doubled", "every_deed_is_settled"}


def test_the_judge_sees_what_is_wrong_with_pdfs(seen: Evidence) -> None:
    first = Deed.objects.get(pk=seen.record.deeds[0])
    storage.keep(first, b"another file", replace=True)
    assert found(seen) == {"each_completed_deed_has_its_one_pdf"}
    storage.remove(first)
    assert found(seen) == {"each_completed_deed_has_its_one_pdf"}
    failed = Deed.objects.get(pk=seen.record.deeds[2])
    assert storage.keep(failed, b"%PDF-left")
    assert f"{storage.name_of(failed)} belongs to no completed deed" in (
        verdict.each_completed_deed_has_its_one_pdf(seen)
    )


def test_the_judge_sees_an_end_that_nothing_explains(seen: Evidence) -> None:
    Deed.objects.filter(pk=seen.record.deeds[0]).update(
        status="failed", failure_code="main_api_timeout", completed_at=None, pdf_name="", pdf_sha256=""
    )
    assert "every_end_is_explained" in found(seen)


def test_the_judge_sees_what_clients_and_processes_told(seen: Evidence) -> None:
    seen.record.bare_errors.append("500 '<html>'")
    seen.record.given_up.append(1)
    seen.catch_up = 121.0
    seen.ended.append("worker ended with exit code 1")
    assert found(seen) == {
        "every_order_was_accepted",
        "no_server_error_is_bare",
        "no_process_ended_by_itself",
        "what_waited_for_the_renderer_was_made_soon",
    }


def test_the_judge_sees_a_deed_that_nobody_paid_for(seen: Evidence) -> None:
    free = Deed.objects.get(pk=seen.record.deeds[0])
    free.pk, free.order_id = uuid.uuid4(), "FREE"
    free.save(force_insert=True)
    assert "each_completed_deed_is_charged_once" in found(seen)


def test_the_judge_sees_news_that_did_not_arrive(seen: Evidence, api: Api, settings: Any) -> None:
    register(api.partner, ["https://hooks.invalid/"], "deed.*")
    assert found(seen) == {"each_end_was_told_at_least_once"}


def test_the_judge_sees_an_answer_that_nobody_counted(seen: Evidence, api: Api) -> None:
    seen.record.request_ids.append("req_unknown")
    assert found(seen) == {"each_answer_is_in_the_request_log"}


def test_the_judge_sees_a_charge_that_stripe_does_not_know(seen: Evidence, api: Api) -> None:
    seen.stripe = {"sums": {}, "violations": []}
    assert "each_charge_reached_stripe_once" in found(seen)
    LedgerEntry.objects.update(sync_state="accepted", amount=0)
    assert found(seen) == set()
    seen.stripe["violations"] = ["a meter event too old"]
    assert found(seen) == {"each_charge_reached_stripe_once"}
