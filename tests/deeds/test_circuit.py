"""The circuit to the Main API: opens when it is away, lets one look, and releases who waited."""

import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.test import Client
from django.utils import timezone
from redis import ConnectionPool, Redis

from deeds import circuit, fulfilment, hints, outcomes, sweeping, tasks
from deeds.circuit import Admission
from deeds.main_api import MainApiError, Renderer, renderer_for
from deeds.models import Deed
from keys.models import Partner
from tests.api import Api
from tests.conftest import MainApi

Orders = Callable[..., dict[str, Any]]
NOW = dt.datetime(2026, 11, 24, 12, tzinfo=dt.UTC)
OUTAGE = MainApiError("main_api_unavailable", "status 503", is_temporary=True, is_outage=True)
ONE_ORDER = MainApiError("main_api_rejected", "no", is_temporary=False)


@pytest.fixture
def clock() -> Any:
    with time_machine.travel(NOW, tick=False) as clock:
        yield clock


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    sent: list[str] = []
    monkeypatch.setattr(hints, "send", sent.append)
    monkeypatch.setattr(hints, "revive", lambda *, is_bulk: sent.append("drain"))
    monkeypatch.setattr(sweeping, "revive", lambda *, is_bulk: sent.append("drain"))
    monkeypatch.setattr(hints, "sweep_now", lambda: sent.append("sweep"))
    return sent


@pytest.fixture
def place(api: Api, order: Orders) -> Callable[[int], list[Deed]]:
    def make(number: int) -> list[Deed]:
        answers = [api.post("/v2/deeds", order(order_id=f"C-{n}")) for n in range(number)]
        assert {answer.status_code for answer in answers} == {202}
        return [Deed.objects.get(pk=answer.json()["id"]) for answer in answers]

    return make


def away(environ: Any, start_response: Any) -> list[bytes]:
    start_response("503 Service Unavailable", [("Content-Type", "text/html")])
    return [b"<h1>busy</h1>"]


def live() -> Renderer:
    return renderer_for(livemode=True)


def fail(times: int) -> None:
    for _ in range(times):
        circuit.failed(live(), OUTAGE, is_probe=False)


def test_it_works(clock: Any) -> None:
    fail(4)
    assert circuit.admit(live()) is Admission.CLOSED
    fail(1)
    assert circuit.admit(live()) is Admission.OPEN
    assert circuit.state(live()) == "open"
    clock.shift(11)
    assert circuit.state(live()) == "half_open"
    assert circuit.admit(live()) is Admission.PROBE
    assert circuit.succeeded(live())
    assert circuit.admit(live()) is Admission.CLOSED
    assert not circuit.succeeded(live()), "it was closed already"


def test_of_all_workers_one_probes(clock: Any) -> None:
    fail(5)
    clock.shift(11)

    def admitted(_: int) -> Admission:
        return circuit.admit(live())

    with ThreadPoolExecutor(16) as pool:
        admissions = list(pool.map(admitted, range(64)))
    assert admissions.count(Admission.PROBE) == 1
    assert admissions.count(Admission.OPEN) == 63


def test_a_probe_that_fails_opens_it_again(clock: Any) -> None:
    fail(5)
    clock.shift(11)
    assert circuit.admit(live()) is Admission.PROBE
    circuit.failed(live(), OUTAGE, is_probe=True)
    assert circuit.admit(live()) is Admission.OPEN
    clock.shift(11)
    assert circuit.admit(live()) is Admission.PROBE


def test_its_rest_grows_to_a_minute_while_probes_fail(clock: Any) -> None:
    fail(5)
    for rest in (10, 10, 20, 40, 60, 60):
        clock.shift(rest - 1)
        assert circuit.admit(live()) is Admission.OPEN
        clock.shift(2)
        assert circuit.admit(live()) is Admission.PROBE
        circuit.failed(live(), OUTAGE, is_probe=True)
    clock.shift(61)
    circuit.succeeded(live())
    fail(5)
    clock.shift(11)
    assert circuit.admit(live()) is Admission.PROBE, "the next outage begins anew"


def test_a_clock_that_is_put_back_does_not_keep_it_open(clock: Any) -> None:
    fail(5)
    clock.move_to(NOW - dt.timedelta(seconds=3))
    assert circuit.admit(live()) is Admission.OPEN, "hosts differ by as much"
    clock.move_to(NOW - dt.timedelta(hours=1))
    assert circuit.state(live()) == "half_open"
    assert circuit.admit(live()) is Admission.PROBE
    assert circuit.admit(live()) is Admission.OPEN, "one probes"
    circuit.failed(live(), OUTAGE, is_probe=True)
    assert circuit.admit(live()) is Admission.OPEN
    clock.shift(11)
    assert circuit.admit(live()) is Admission.PROBE


def test_a_probe_whose_worker_died_is_given_to_another(clock: Any) -> None:
    fail(5)
    clock.shift(11)
    assert circuit.admit(live()) is Admission.PROBE
    clock.shift(30)
    assert circuit.admit(live()) is Admission.OPEN
    clock.shift(10)
    assert circuit.admit(live()) is Admission.PROBE


def test_a_success_in_between_begins_the_count_anew(clock: Any) -> None:
    fail(4)
    circuit.succeeded(live())
    fail(4)
    assert circuit.admit(live()) is Admission.CLOSED


def test_failures_far_apart_do_not_open_it(clock: Any) -> None:
    for _ in range(10):
        fail(1)
        clock.shift(61)
    assert circuit.admit(live()) is Admission.CLOSED


def test_what_one_order_met_says_nothing_about_others(clock: Any) -> None:
    for _ in range(10):
        circuit.failed(live(), ONE_ORDER, is_probe=False)
    assert circuit.admit(live()) is Admission.CLOSED


def test_each_address_and_mode_has_its_own(clock: Any, settings: Any) -> None:
    fail(5)
    assert circuit.admit(renderer_for(livemode=False)) is Admission.CLOSED
    settings.MAIN_API_BASE_URL = "https://another.example.com"
    assert circuit.admit(live()) is Admission.CLOSED


def test_without_redis_calls_are_made(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = Redis(connection_pool=ConnectionPool(port=9))
    monkeypatch.setattr(circuit, "get_redis_connection", lambda _: nowhere)
    fail(9)
    assert circuit.admit(live()) is Admission.CLOSED
    assert circuit.state(live()) == "closed"
    assert not circuit.succeeded(live())


def test_while_it_is_open_nothing_is_called_and_no_attempt_is_used(
    place: Any, main_api: MainApi, sent: list[str], api: Api, order: Orders
) -> None:
    deeds = place(8)
    main_api.answer = away
    for deed in deeds:
        fulfilment.serve(is_bulk=False, hinted=deed.pk)
    assert len(main_api.calls) == 5 * 3, "five deeds met it, with three calls each"
    waiting = Deed.objects.filter(attempts=0, status="queued", hinted_at=None)
    assert waiting.count() == 3
    assert api.post("/v2/deeds", order(order_id="LATER")).status_code == 202, "orders are accepted"
    tasks.serve(str(deeds[7].pk))
    assert len(main_api.calls) == 15
    sent.clear()
    sweeping.sweep()
    assert sent == [], "there is nobody to call"


def test_once_it_is_back_all_are_made_at_once(place: Any, main_api: MainApi, sent: list[str]) -> None:
    renders = main_api.answer
    with time_machine.travel(NOW) as clock:
        deeds = place(7)
        main_api.answer = away
        for deed in deeds:
            fulfilment.serve(is_bulk=False, hinted=deed.pk)
        for _ in range(8):  # an outage of hours: a look now and then, which costs no attempt
            clock.shift(600)
            sweeping.sweep()
            assert sent[-1] == "drain"
            fulfilment.serve(is_bulk=False)
        assert len(main_api.calls) == 15 + 8
        assert max(Deed.objects.values_list("attempts", flat=True)) == 1
        entries = [len(timeline) for timeline in Deed.objects.values_list("timeline", flat=True)]
        assert max(entries) == 3, "nor does it leave an entry"
        main_api.answer = renders
        clock.shift(61)
        sent.clear()
        sweeping.sweep()
        tasks.drain(is_bulk=False)
        assert sent == ["drain", "sweep", "drain"], "the probe, its success, and the next"
        assert circuit.state(live()) == "closed"
        assert Deed.objects.claimable(timezone.now()).count() == 6
        assert sweeping.sweep()["hinted"] == 6
        while fulfilment.serve(is_bulk=False):
            pass
        assert set(Deed.objects.values_list("status", flat=True)) == {"completed"}


def test_a_message_used_up_by_a_probe_leaves_no_deed_without_one(
    place: Any, main_api: MainApi, sent: list[str]
) -> None:
    with time_machine.travel(NOW) as clock:
        deeds = place(3)
        fail(5)
        clock.shift(11)
        assert fulfilment.serve(is_bulk=False, hinted=deeds[2].pk), "it probes with the first in line"
        assert circuit.state(live()) == "closed"
        waiting = Deed.objects.filter(status="queued")
        assert waiting.count() == 2
        assert waiting.filter(hinted_at=None).count() == 1, "two messages were sent for them, one is left"
        assert sweeping.sweep()["hinted"] == 1


def test_orders_at_which_the_renderer_breaks_do_not_keep_it_shut_for_the_others(
    place: Any, main_api: MainApi, sent: list[str]
) -> None:
    with time_machine.travel(NOW) as clock:
        *poison, fresh = place(4)
        works, main_api.answer = main_api.answer, away
        for deed in poison:
            tasks.serve(str(deed.pk))
        assert set(Deed.objects.filter(pk__in=[one.pk for one in poison]).values_list("put_back_for")) == {
            ("main_api_unavailable",)
        }
        fail(5)
        clock.shift(11)
        main_api.answer = works
        assert fulfilment.serve(is_bulk=False)
        fresh.refresh_from_db()
        assert (fresh.status, circuit.state(live())) == ("completed", "closed")


def test_a_probe_gives_up_a_deed_only_after_its_day(place: Any, main_api: MainApi, sent: list[str]) -> None:
    with time_machine.travel(NOW) as clock:
        (deed,) = place(1)
        main_api.answer = away
        fail(5)
        for hours in (1, 20, 10):
            clock.shift(hours * 3600)
            assert fulfilment.serve(is_bulk=False)
            deed.refresh_from_db()
        assert (deed.status, deed.failure_code, deed.failure_retryable) == (
            "failed",
            "main_api_unavailable",
            True,
        )
        assert [note.outcome for note in deed.attempt_log.all()] == ["main_api_unavailable"] * 3


def test_a_probe_that_gets_what_is_no_deed_gives_up_none(
    place: Any, main_api: MainApi, sent: list[str]
) -> None:
    def page(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b"<html></html>"]

    main_api.answer = page
    with time_machine.travel(NOW) as clock:
        (deed,) = place(1)
        fail(5)
        clock.shift(11)
        assert fulfilment.serve(is_bulk=False)
        deed.refresh_from_db()
        assert (deed.status, deed.attempts, deed.put_back_for) == ("queued", 0, "invalid_pdf")


def test_the_last_attempt_is_at_the_end_of_its_time(place: Any, settings: Any) -> None:
    (deed,) = place(1)
    deed.attempts = len(settings.DEED_RETRY_SCHEDULE_SECONDS) + 1
    soon = deed.created_at + dt.timedelta(seconds=sum(settings.DEED_RETRY_SCHEDULE_SECONDS) - 60)
    assert outcomes._pause_after(deed, OUTAGE, now=soon, is_probe=False) == dt.timedelta(seconds=60)


def test_a_renderer_that_comes_and_goes_costs_no_deed_its_day(
    place: Any, main_api: MainApi, sent: list[str]
) -> None:
    works = main_api.answer
    with time_machine.travel(NOW) as clock:
        place(2)
        last = Deed.objects.order_by("-id")[0]
        main_api.answer = away
        for _ in range(30):  # it answers one call and is away again, for half an hour
            Deed.objects.filter(status="queued").update(next_attempt_at=timezone.now())
            while fulfilment.serve(is_bulk=False):
                pass
            circuit.succeeded(live())
            clock.shift(60)
        last.refresh_from_db()
        assert (last.status, last.attempts) == ("queued", 30)
        main_api.answer = works
        clock.shift(24 * 3600)
        main_api.answer = away
        fulfilment.serve(is_bulk=False)
        fulfilment.serve(is_bulk=False)
        assert set(Deed.objects.values_list("status", flat=True)) == {"failed"}, "after a day it ends"


def test_a_deed_that_has_waited_long_in_line_has_its_attempts_all_the_same(
    place: Any, main_api: MainApi, sent: list[str]
) -> None:
    """Behind many others, or while no worker of ours was there."""
    main_api.answer = away
    with time_machine.travel(NOW) as clock:
        (deed,) = place(1)
        clock.shift(dt.timedelta(hours=25))
        assert fulfilment.serve(is_bulk=False)
        deed.refresh_from_db()
        assert (deed.status, deed.attempts) == ("queued", 1)


def test_a_probe_that_finds_it_back_leaves_the_whole_way_in_the_timeline(
    place: Any, main_api: MainApi, sent: list[str]
) -> None:
    with time_machine.travel(NOW) as clock:
        (deed,) = place(1)
        fail(5)
        clock.shift(11)
        assert fulfilment.serve(is_bulk=False)
        deed.refresh_from_db()
        assert [one["status"] for one in deed.timeline] == ["queued", "rendering", "completed"]


def test_a_probe_without_a_deed_is_handed_back(
    db: None, clock: Any, django_assert_max_num_queries: Any
) -> None:
    fail(5)
    clock.shift(11)
    with django_assert_max_num_queries(5):
        assert not fulfilment.serve(is_bulk=False)
    assert circuit.admit(live()) is Admission.PROBE


def test_a_probe_with_an_order_that_is_refused_by_now_is_handed_back(
    place: Any, main_api: MainApi, clock: Any, sent: list[str]
) -> None:
    (deed,) = place(1)
    Deed.objects.update(order={**deed.order, "vesting": ""})
    fail(5)
    clock.shift(11)
    assert fulfilment.serve(is_bulk=False)
    deed.refresh_from_db()
    assert (deed.status, deed.failure_code) == ("failed", "order_refused")
    assert main_api.calls == []
    assert circuit.admit(live()) is Admission.PROBE, "the next one may look"


def test_a_deed_of_a_batch_probes_where_there_is_no_other(
    api: Api, order: Orders, main_api: MainApi, clock: Any, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "send_bulk", sent.append)
    api.post("/v2/deeds/batch", {"orders": [order()]})
    fail(5)
    clock.shift(11)
    assert fulfilment.serve(is_bulk=False)
    assert Deed.objects.get().status == "completed"
    assert circuit.admit(live()) is Admission.CLOSED


def test_a_probe_whose_worker_is_stopped_gives_its_deed_back_as_it_was(
    place: Any, clock: Any, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (deed,) = place(1)
    fail(5)
    clock.shift(11)

    def interrupted(*_: Any, **__: Any) -> None:
        raise SystemExit

    monkeypatch.setattr(fulfilment, "render", interrupted)
    with pytest.raises(SystemExit):
        fulfilment.serve(is_bulk=False)
    deed.refresh_from_db()
    assert (deed.status, deed.attempts, deed.lease) == ("queued", 0, None)
    assert sent[-1] == str(deed.pk)


def test_five_minutes_of_429_are_five_minutes_of_silence(
    place: Any, main_api: MainApi, sent: list[str]
) -> None:
    renders = main_api.answer

    def busy(environ: Any, start_response: Any) -> list[bytes]:
        start_response("429 Too Many Requests", [("Retry-After", "300")])
        return [b""]

    with time_machine.travel(NOW) as clock:
        deeds = place(4)
        main_api.answer = busy
        for deed in deeds:
            fulfilment.serve(is_bulk=False, hinted=deed.pk)
        clock.shift(290)
        for deed in deeds:
            fulfilment.serve(is_bulk=False, hinted=deed.pk)
        assert len(main_api.calls) == 1, "one answer was enough for all of them"
        main_api.answer = renders
        clock.shift(12)
        sweeping.sweep()
        while fulfilment.serve(is_bulk=False):
            pass
        assert set(Deed.objects.values_list("status", flat=True)) == {"completed"}


def test_faults_ordered_at_the_sandbox_open_nothing(
    acme: Partner, order: Orders, main_api: MainApi, sent: list[str]
) -> None:
    tester = Api.of(acme, environment="test")
    for number in range(7):
        tester.post("/v2/deeds", order(order_id=f"sandbox-503-9-{number}"))
        fulfilment.serve(is_bulk=False)
    assert len(main_api.calls) == 7 * 3
    assert circuit.state(renderer_for(livemode=False)) == "closed"


def test_a_sandbox_that_is_not_there_does(
    acme: Partner, order: Orders, settings: Any, sent: list[str]
) -> None:
    settings.SANDBOX_BASE_URL = "http://127.0.0.1:9"
    tester = Api.of(acme, environment="test")
    for number in range(6):
        tester.post("/v2/deeds", order(order_id=f"T-{number}"))
        fulfilment.serve(is_bulk=False)
    assert circuit.state(renderer_for(livemode=False)) == "open"
    assert Deed.objects.filter(attempts=0).count() == 1


def test_readiness_shows_it(db: None, client: Client, main_api: MainApi) -> None:
    shown = client.get("/readyz").json()["dependencies"]["main_api"]
    assert (shown["status"], shown["circuit"]) == ("ok", "closed")
    fail(5)
    answer = client.get("/readyz")
    shown = answer.json()["dependencies"]["main_api"]
    assert (shown["status"], shown["circuit"]) == ("unavailable", "open")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    connection.close()


def test_the_schedule_is_a_day(settings: Any) -> None:
    total = sum(settings.DEED_RETRY_SCHEDULE_SECONDS)
    assert total * 0.8 + 4 * 3600 > 22 * 3600
    assert 23 * 3600 < total < 26 * 3600


def test_a_pause_is_spread_so_that_retries_do_not_come_together(place: Any, api: Api) -> None:
    (deed,) = place(1)
    deed.attempts = 3
    error = MainApiError("main_api_timeout", "x", is_temporary=True)
    pauses = {outcomes._pause_after(deed, error, now=timezone.now(), is_probe=False) for _ in range(20)}
    assert len(pauses) > 10
    assert all(pause and 480 <= pause.total_seconds() <= 720 for pause in pauses)
