"""Workers that die, stall, break or are stopped: the deed is made once, whatever happens to them."""

import datetime as dt
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.utils import timezone
from kombu.exceptions import OperationalError

from billing.models import Reservation
from deeds import circuit, fulfilment, heartbeat, hints, storage, sweeping, tasks, waiting
from deeds import main_api as main_api_module
from deeds.models import Deed
from deeds.signals import deed_settled
from partner_api import celery_app
from tests.api import Api
from tests.conftest import MainApi
from tests.deeds.crashing import STEPS
from tests.deeds.kept import claim

Orders = Callable[..., dict[str, Any]]
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def place(api: Api, order: Orders, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Deed]:
    monkeypatch.setattr(hints, "send", lambda deed_id: None)

    def make(order_id: str = "ORD-1") -> Deed:
        answer = api.post("/v2/deeds", order(order_id=order_id))
        return Deed.objects.get(pk=answer.json()["id"])

    return make


@pytest.fixture
def settled() -> Any:
    told: list[str] = []

    def receiver(deed: Deed, **_: Any) -> None:
        told.append(deed.status)

    deed_settled.connect(receiver)
    yield told
    deed_settled.disconnect(receiver)


def the_lease_runs_out(deed: Deed) -> None:
    Deed.objects.filter(pk=deed.pk).update(lease_expires_at=timezone.now() - dt.timedelta(seconds=1))


def own_environment(deed_files: Path) -> dict[str, str]:
    server = os.environ["DATABASE_URL"].rpartition("/")[0]
    return {
        **os.environ,
        "DATABASE_URL": f"{server}/{connection.settings_dict['NAME']}",
        "DJANGO_SETTINGS_MODULE": "partner_api.settings",
        "PYTHONPATH": str(ROOT),
        "DEED_STORAGE_DIR": str(deed_files),
    }


def test_a_worker_killed_at_any_step_costs_nothing(
    place: Any, main_api: MainApi, transactional_db: None, deed_files: Path, settled: list[str]
) -> None:
    deeds = {step: place(f"DIES-{number}") for number, step in enumerate(STEPS)}
    arguments = [text for step, deed in deeds.items() for text in (str(deed.pk), step)]
    env = own_environment(deed_files) | {
        "MAIN_API_BASE_URL": main_api.url,
        "MAIN_API_INTERNAL_TOKEN": "main-api-token",
    }
    script = str(Path(__file__).parent / "crashing.py")
    done = subprocess.run(
        [sys.executable, script, *arguments], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(main_api.calls) == 3
    assert set(Deed.objects.values_list("status", flat=True)) == {"rendering"}, "each died with its lease"
    assert sweeping.sweep()["recovered"] == 0, "the leases still hold"
    for deed in deeds.values():
        the_lease_runs_out(deed)
    assert sweeping.sweep()["recovered"] == 4
    for _ in deeds:
        assert fulfilment.serve(is_bulk=False)
    assert settled == ["completed"] * 4
    files = sorted(path.stem for path in deed_files.rglob("*.pdf"))
    assert files == sorted(str(deed.pk) for deed in deeds.values()), "one PDF each, and no orphan"
    for deed in Deed.objects.all():
        assert (deed.status, deed.crashes, deed.attempts) == ("completed", 1, 2)
        assert hashlib.sha256(storage.read(deed) or b"").hexdigest() == deed.pdf_sha256
        assert [note.outcome for note in deed.attempt_log.order_by("id")] == ["worker_lost", "completed"]


def test_a_worker_that_stalled_beyond_its_lease_is_refused(
    place: Any, main_api: MainApi, settled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease is lost between the store and the end; another worker has made the deed by then."""
    deed = place()
    keep = storage.keep

    def stalls(of: Deed, content: bytes) -> bool:
        monkeypatch.setattr(storage, "keep", keep)
        the_lease_runs_out(of)
        assert sweeping.sweep()["recovered"] == 1
        tasks.serve(str(of.pk))
        return keep(of, content)

    monkeypatch.setattr(storage, "keep", stalls)
    tasks.serve(str(deed.pk))
    deed.refresh_from_db()
    assert settled == ["completed"], "once"
    assert len(main_api.calls) == 2
    assert hashlib.sha256(storage.read(deed) or b"").hexdigest() == deed.pdf_sha256, "both have the same"
    assert deed.attempt_log.filter(outcome="completed").count() == 1


def test_a_worker_that_lost_its_lease_while_rendering_stores_nothing(
    place: Any, main_api: MainApi, deed_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deed = place()
    render = main_api_module.render

    def renders_late(*args: Any, **kwargs: Any) -> Any:
        rendering = render(*args, **kwargs)
        the_lease_runs_out(deed)
        assert sweeping.sweep()["recovered"] == 1
        return rendering

    monkeypatch.setattr(fulfilment, "render", renders_late)
    tasks.serve(str(deed.pk))
    deed.refresh_from_db()
    assert deed.status == "queued"
    assert not list(deed_files.rglob("*.pdf"))


@pytest.mark.parametrize("order_id", ["sandbox-400", "sandbox-503-9"])
def test_a_worker_that_lost_its_lease_has_no_say_in_how_it_ends(
    place: Any, main_api: MainApi, settled: list[str], monkeypatch: pytest.MonkeyPatch, order_id: str
) -> None:
    """The deed is another worker's by then, and may well succeed there."""
    deed = place(order_id)
    render = main_api_module.render

    def renders_late(*args: Any, **kwargs: Any) -> Any:
        the_lease_runs_out(deed)
        assert sweeping.sweep()["recovered"] == 1
        return render(*args, **kwargs)

    monkeypatch.setattr(fulfilment, "render", renders_late)
    tasks.serve(str(deed.pk))
    deed.refresh_from_db()
    assert (deed.status, deed.failure_code) == ("queued", "")
    assert [note.outcome for note in deed.attempt_log.all()] == ["worker_lost"]
    assert settled == []
    assert Reservation.objects.filter(pk=deed.pk).exists(), "its place in the quota is still its own"


def test_a_long_render_keeps_its_lease(
    place: Any, main_api: MainApi, settings: Any, transactional_db: None
) -> None:
    settings.DEED_LEASE_SECONDS = 0.6
    deed = place()
    sandbox = main_api.answer
    is_called, may_go_on = threading.Event(), threading.Event()

    def long(environ: Any, start_response: Any) -> Any:
        is_called.set()
        may_go_on.wait(10)
        return sandbox(environ, start_response)

    def work() -> None:
        try:
            tasks.serve(str(deed.pk))
        finally:
            connection.close()

    main_api.answer = long
    worker = threading.Thread(target=work)
    worker.start()
    assert is_called.wait(10)
    first = Deed.objects.get(pk=deed.pk)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(1.3)")
    assert sweeping.sweep()["recovered"] == 0
    held = Deed.objects.get(pk=deed.pk)
    assert held.lease == first.lease
    assert held.lease_expires_at is not None
    assert first.lease_expires_at is not None
    assert held.lease_expires_at > first.lease_expires_at
    may_go_on.set()
    worker.join(10)
    deed.refresh_from_db()
    assert (deed.status, deed.crashes) == ("completed", 0)


def test_a_worker_that_is_stopped_gives_its_deed_back(
    place: Any, main_api: MainApi, monkeypatch: pytest.MonkeyPatch, settled: list[str]
) -> None:
    deed = place()
    sent: list[str] = []
    monkeypatch.setattr(hints, "send", sent.append)

    def interrupted(*_: Any, **__: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(fulfilment, "render", interrupted)
        with pytest.raises(SystemExit):
            tasks.serve(str(deed.pk))
    deed.refresh_from_db()
    assert (deed.status, deed.attempts, deed.crashes, deed.lease) == ("queued", 0, 0, None)
    assert deed.timeline[-1]["detail"] == "worker_stopped"
    assert sent == [str(deed.pk)]
    assert settled == []
    assert fulfilment.serve(is_bulk=False)


def test_a_fault_of_ours_is_noted_and_does_not_go_on_for_ever(
    place: Any, main_api: MainApi, monkeypatch: pytest.MonkeyPatch, settings: Any, settled: list[str]
) -> None:
    settings.DEED_MAX_CRASHES = 2
    deed = place()

    def breaks(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("deeds.mapping.main_api_body", breaks)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            tasks.serve(str(deed.pk))
        assert sweeping.sweep()["recovered"] == 1
    deed.refresh_from_db()
    assert (deed.status, deed.failure_code, deed.failure_retryable) == ("failed", "renderer_crashed", False)
    assert "ZeroDivisionError" not in deed.failure_message
    assert [note.reason for note in deed.attempt_log.order_by("id")] == ["ZeroDivisionError"] * 4
    assert settled == ["failed"]
    assert main_api.calls == []


@pytest.mark.parametrize(("order_id", "status"), [("ORD-1", "completed"), ("sandbox-400", "failed")])
def test_a_broken_end_does_not_wake_nor_tell(
    place: Any,
    main_api: MainApi,
    monkeypatch: pytest.MonkeyPatch,
    transactional_db: None,
    order_id: str,
    status: str,
) -> None:
    """A receiver that raises undoes the end: charged or given back, announced and ended, or nothing."""
    deed = place(order_id)
    woken: list[Any] = []
    monkeypatch.setattr(waiting, "wake", woken.append)

    def refuses(**_: Any) -> None:
        raise ZeroDivisionError

    deed_settled.connect(refuses)
    try:
        with pytest.raises(ZeroDivisionError):
            tasks.serve(str(deed.pk))
    finally:
        deed_settled.disconnect(refuses)
    deed.refresh_from_db()
    assert (deed.status, deed.pdf_sha256) == ("rendering", "")
    assert [note.outcome for note in deed.attempt_log.all()] == ["worker_broke"]
    assert Reservation.objects.filter(pk=deed.pk).exists()
    assert woken == []
    assert sweeping.sweep()["recovered"] == 1
    assert fulfilment.serve(is_bulk=False)
    deed.refresh_from_db()
    assert deed.status == status
    assert not Reservation.objects.exists()


def test_a_cancellation_that_can_not_be_told_of_is_none(place: Any, api: Api) -> None:
    deed = place()

    def refuses(**_: Any) -> None:
        raise ZeroDivisionError

    deed_settled.connect(refuses)
    try:
        assert api.post(f"/v2/deeds/{deed.pk}/cancel").status_code == 500
    finally:
        deed_settled.disconnect(refuses)
    deed.refresh_from_db()
    assert deed.status == "queued"
    assert Reservation.objects.filter(pk=deed.pk).exists()


def test_a_database_that_was_away_while_a_deed_was_rendered_costs_nothing(
    place: Any, main_api: MainApi, transactional_db: None
) -> None:
    """As at a failover: all connections that were open then are dead."""
    deed = place()
    renders = main_api.answer

    def meanwhile(environ: Any, start_response: Any) -> Any:
        with psycopg.connect(**connection.get_connection_params() | {"pool": None}) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        return renders(environ, start_response)

    main_api.answer = meanwhile
    tasks.serve(str(deed.pk))
    deed.refresh_from_db()
    assert (deed.status, deed.crashes, len(main_api.calls)) == ("completed", 0, 1)


def test_a_heart_whose_connection_broke_goes_on_beating(place: Any, transactional_db: None) -> None:
    deed = place()
    lease = claim(deed)
    connection.connection.close()
    assert heartbeat._renew(deed, lease)
    before = Deed.objects.get(pk=deed.pk).lease_expires_at
    assert heartbeat._renew(deed, lease)
    after = Deed.objects.get(pk=deed.pk).lease_expires_at
    assert before is not None
    assert after is not None
    assert after > before


def test_the_cause_of_an_earlier_crash_is_not_the_last_ones(
    place: Any, main_api: MainApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    deed = place()

    def breaks(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("deeds.mapping.main_api_body", breaks)
        with pytest.raises(ZeroDivisionError):
            tasks.serve(str(deed.pk))
    sweeping.sweep()
    deed.refresh_from_db()
    assert claim(deed)
    the_lease_runs_out(deed)
    sweeping.sweep()
    lost = [note.reason for note in deed.attempt_log.filter(outcome="worker_lost").order_by("id")]
    assert lost == ["ZeroDivisionError", "it was killed, or ran out of memory"]


def test_one_sweeper_at_a_time(place: Any, transactional_db: None) -> None:
    deed = place()
    Deed.objects.update(hinted_at=None)
    database = connection.settings_dict
    other = psycopg.connect(
        host=database["HOST"],
        port=database["PORT"],
        user=database["USER"],
        password=database["PASSWORD"],
        dbname=database["NAME"],
    )
    other.execute("SELECT pg_advisory_lock(%s)", [sweeping._LOCK])
    assert sweeping.sweep() == {"recovered": 0, "hinted": 0, "released": 0}
    # Postgres notices a closed connection when it gets to it; this is at once.
    other.execute("SELECT pg_advisory_unlock(%s)", [sweeping._LOCK])
    other.close()
    assert sweeping.sweep()["hinted"] == 1
    assert Deed.objects.get(pk=deed.pk).hinted_at is not None


def test_lost_messages_are_made_up_for_by_a_few(
    api: Api, order: Orders, main_api: MainApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis lost everything: a few new messages, each of which goes on while there is work."""
    monkeypatch.setattr(hints, "send_bulk", lambda deed_id: None)
    api.post("/v2/deeds/batch", {"orders": [order(order_id=f"L-{n}") for n in range(10)]})
    Deed.objects.update(hinted_at=timezone.now() - dt.timedelta(seconds=121))
    sent: list[bool] = []
    monkeypatch.setattr(hints, "revive", lambda *, is_bulk: sent.append(is_bulk))
    monkeypatch.setattr(sweeping, "revive", lambda *, is_bulk: sent.append(is_bulk))
    assert sweeping.sweep()["hinted"] == sweeping.REVIVED
    assert sent == [True] * sweeping.REVIVED
    assert sweeping.sweep()["hinted"] == 10 - sweeping.REVIVED, "the others, and none again"
    assert sweeping.sweep()["hinted"] == 0
    while sent:
        tasks.drain(is_bulk=sent.pop())
    assert set(Deed.objects.values_list("status", flat=True)) == {"completed"}
    assert len(main_api.calls) == 10


def test_a_deed_of_a_batch_is_hinted_at_in_the_queue_of_batches(
    api: Api, order: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, str]] = []
    monkeypatch.setattr(hints, "send", lambda deed_id: sent.append(("alone", deed_id)))
    monkeypatch.setattr(hints, "send_bulk", lambda deed_id: sent.append(("batch", deed_id)))
    answer = api.post("/v2/deeds/batch", {"orders": [order(order_id="B-1")]})
    deed_id = answer.json()["data"][0]["deed"]["id"]
    Deed.objects.update(hinted_at=None)
    sweeping.sweep()
    assert sent == [("batch", deed_id)]


def test_a_broker_that_is_away_stops_no_sweep(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    late, lost = place("LATE"), place("LOST")
    assert claim(late)
    the_lease_runs_out(late)
    Deed.objects.filter(pk=lost.pk).update(hinted_at=timezone.now() - dt.timedelta(seconds=121))

    def away(*_: Any, **__: Any) -> None:
        raise OperationalError

    monkeypatch.setattr(hints, "send", away)
    monkeypatch.setattr(sweeping, "revive", away)
    assert sweeping.sweep()["recovered"] == 1
    late.refresh_from_db()
    assert (late.status, late.hinted_at) == ("queued", None), "the next sweep hints at it"


def test_a_worker_that_renews_its_lease_at_the_last_moment_keeps_its_deed(place: Any) -> None:
    """The sweeper has found it, and comes to it a little later."""
    deed = place()
    lease = claim(deed)
    the_lease_runs_out(deed)
    (found,) = Deed.objects.abandoned(timezone.now())
    now = timezone.now()
    assert deed.renew(lease, now=now)
    assert not found.recover(now=now)
    assert deed.is_held(lease)


def test_a_message_comes_back_when_its_worker_dies() -> None:
    """What Celery must be told for that, as it will run."""
    assert celery_app.conf.task_acks_late
    assert celery_app.conf.task_reject_on_worker_lost
    assert celery_app.conf.worker_prefetch_multiplier == 1
    for name in ("serve", "serve_bulk", "drain"):
        task = celery_app.tasks[f"deeds.tasks.{name}"]
        assert task.acks_late
        assert 0 < (task.soft_time_limit or 0) < (task.time_limit or 0)


def test_pages_in_place_of_pdfs_open_no_circuit(place: Any, main_api: MainApi) -> None:
    def page(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b"<html></html>"]

    main_api.answer = page
    for number in range(6):
        tasks.serve(str(place(f"HTML-{number}").pk))
    assert circuit.state(main_api_module.renderer_for(livemode=True)) == "closed"
