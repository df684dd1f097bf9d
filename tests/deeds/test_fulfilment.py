"""How a queued deed becomes a PDF, and what happens when it doesn't."""

import datetime as dt
import io
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
import responses
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone
from pypdf import PdfWriter

from deeds import fulfilment, hints, ordering, storage, sweeping, tasks, waiting
from deeds.models import Deed
from deeds.sandbox.drawing import draw
from deeds.signals import deed_settled
from keys.models import Partner
from tests.api import Api
from tests.conftest import MainApi
from tests.deeds.kept import claim

Orders = Callable[..., dict[str, Any]]
Place = Callable[..., Deed]


@pytest.fixture
def place(api: Api, order: Orders) -> Place:
    def make(order_id: str = "ORD-123", deed_type: str = "grant") -> Deed:
        answer = api.post("/v2/deeds", order(deed_type, order_id=order_id))
        return Deed.objects.get(pk=answer.json()["id"])

    return make


@pytest.fixture
def settled() -> Any:
    """The deeds that the other apps were told of."""
    told: list[tuple[str, bool]] = []

    def receiver(deed: Deed, **_: Any) -> None:
        told.append((deed.status, connection.in_atomic_block))

    deed_settled.connect(receiver)
    yield told
    deed_settled.disconnect(receiver)


def run(deed: Deed) -> Deed:
    tasks.serve(str(deed.pk))
    deed.refresh_from_db()
    return deed


def answering(content: bytes, status: str = "200 OK", **headers: str) -> Callable[..., Any]:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        given = [(name.replace("_", "-"), value) for name, value in headers.items()]
        start_response(status, given or [("Content-Type", "application/pdf")])
        return [content]

    return app


@pytest.mark.parametrize("deed_type", ["grant", "quitclaim", "interspousal", "warranty", "tax"])
def test_it_works_for_every_type(place: Place, main_api: MainApi, settled: Any, deed_type: str) -> None:
    deed = run(place(deed_type=deed_type))
    assert deed.status == "completed"
    assert deed.lease is None
    assert deed.attempts == 1
    assert settled == [("completed", True)]
    assert (storage.read(deed) or b"").startswith(b"%PDF-")


def test_the_call_carries_its_ids(place: Place, main_api: MainApi) -> None:
    deed = run(place("ÄÖ 1"))
    call = main_api.calls[0]
    assert call["HTTP_X_REQUEST_ID"] == deed.request_id
    assert call["HTTP_X_PARTNER_ID"] == str(deed.partner_id)
    assert call["HTTP_X_DEED_ID"] == str(deed.pk)
    assert call["HTTP_X_ORDER_ID"] == "%C3%84%C3%96%201"
    assert call["HTTP_AUTHORIZATION"] == "Bearer main-api-token"


def test_a_test_deed_goes_to_the_sandbox(
    acme: Partner, order: Orders, main_api: MainApi, settings: Any
) -> None:
    settings.MAIN_API_BASE_URL = "http://127.0.0.1:9"
    deed_id = Api.of(acme, environment="test").post("/v2/deeds", order()).json()["id"]
    assert run(Deed.objects.get(pk=deed_id)).status == "completed"


@pytest.mark.parametrize("order_id", ["sandbox-503-2", "sandbox-429-1"])
def test_what_passes_within_seconds_is_repeated_at_once(
    place: Place, main_api: MainApi, order_id: str
) -> None:
    deed = run(place(order_id))
    assert deed.status == "completed"
    assert deed.attempts == 1
    assert len(main_api.calls) == int(order_id[-1]) + 1


def test_what_takes_longer_goes_back_to_the_queue(place: Place, main_api: MainApi, settled: Any) -> None:
    deed = run(place("sandbox-503-9"))
    assert deed.status == "queued"
    assert len(main_api.calls) == 3
    pause = deed.next_attempt_at - timezone.now()
    assert dt.timedelta(seconds=20) < pause < dt.timedelta(seconds=40)
    assert deed.timeline[-1]["detail"] == "main_api_unavailable"
    assert settled == []
    run(deed)
    assert len(main_api.calls) == 3, "it is not due yet"


def test_the_schedule_ends(place: Place, main_api: MainApi, settings: Any, settled: Any) -> None:
    settings.DEED_RETRY_SCHEDULE_SECONDS = [3600]
    deed = run(place("sandbox-503-99"))
    assert deed.status == "queued"
    Deed.objects.update(created_at=F("created_at") - dt.timedelta(seconds=3601), next_attempt_at=Now())
    deed = run(deed)
    assert deed.status == "failed"
    assert (deed.failure_code, deed.failure_retryable) == ("main_api_unavailable", True)
    assert "503" not in deed.failure_message, "what we know is not the partner's"
    assert settled == [("failed", True)]


def test_what_is_never_the_deed_fails_by_its_attempts(
    place: Place, main_api: MainApi, settings: Any, settled: Any
) -> None:
    settings.DEED_RETRY_SCHEDULE_SECONDS = [0]
    deed = run(run(place("sandbox-html")))
    assert (deed.status, deed.failure_code, deed.attempts) == ("failed", "invalid_pdf", 2)
    assert deed.failure_message == "What the renderer made was not this deed."


def test_an_order_that_today_would_be_refused_fails_with_its_fields(
    place: Place, main_api: MainApi, api: Api, settled: Any
) -> None:
    deed = place()
    Deed.objects.update(order={**deed.order, "vesting": "\u200b"})
    deed = run(deed)
    assert (deed.status, deed.failure_code, deed.crashes) == ("failed", "order_refused", 0)
    failure = api.get(f"/v2/deeds/{deed.pk}").json()["failure"]
    assert [(one["pointer"], one["code"]) for one in failure["errors"]] == [("/vesting", "blank")]
    assert failure["retryable"] is False
    assert main_api.calls == []
    assert settled == [("failed", True)]


def test_a_refusal_fails_at_once_with_its_reason(
    place: Place, main_api: MainApi, api: Api, settled: Any
) -> None:
    deed = run(place("sandbox-400"))
    assert deed.status == "failed"
    assert len(main_api.calls) == 1
    assert settled == [("failed", True)]
    failure = api.get(f"/v2/deeds/{deed.pk}").json()["failure"]
    assert failure["code"] == "main_api_rejected"
    assert failure["retryable"] is False
    assert "Grantor information is required" in failure["message"]


def test_a_422_fails_with_the_fields_it_names(place: Place, main_api: MainApi) -> None:
    detail = b'{"detail": [{"loc": ["body", "page"], "msg": "wrong", "type": "x"}]}'
    main_api.answer = answering(detail, "422 Unprocessable", Content_Type="application/json")
    assert "body.page: wrong" in run(place()).failure_message


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "302 Found"])
def test_what_is_our_own_fault_waits_for_us(place: Place, main_api: MainApi, status: str) -> None:
    main_api.answer = answering(b"", status, Location="http://127.0.0.1:9/elsewhere")
    deed = run(place())
    assert deed.status == "queued"
    assert len(main_api.calls) == 1


def bomb() -> bytes:
    writer = PdfWriter()
    for _ in range(501):
        writer.add_blank_page(10, 10)
    output = io.BytesIO()
    writer.write(output)
    return output.getvalue()


def encrypted() -> bytes:
    writer = PdfWriter()
    writer.add_blank_page(10, 10)
    writer.encrypt("secret", algorithm="RC4-128")
    output = io.BytesIO()
    writer.write(output)
    return output.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html></html>",
        b"%PDF-1.4\nnothing",
        draw("GRANT DEED", {})[:9000],
        draw("GRANT DEED", {"grantors_text": "SOMEONE ELSE", "apn": "0000"}),
        bomb(),
        encrypted(),
    ],
    ids=["empty", "html", "no pdf", "cut", "another deed", "501 pages", "encrypted"],
)
def test_what_is_not_the_deed_is_not_kept(place: Place, main_api: MainApi, content: bytes) -> None:
    main_api.answer = answering(content)
    deed = run(place())
    assert deed.status == "queued"
    assert deed.timeline[-1]["detail"] == "invalid_pdf"
    assert storage.read(deed) is None


def test_a_pdf_that_is_too_large_is_not_read_to_its_end(
    place: Place, main_api: MainApi, settings: Any
) -> None:
    settings.PDF_MAX_BYTES = 100_000
    main_api.answer = answering(b"%PDF-" + b"x" * 300_000)
    deed = run(place())
    assert (deed.status, deed.failure_code) == ("failed", "pdf_too_large")


def test_a_timeout_is_tried_again_and_then_put_back(place: Place, main_api: MainApi, settings: Any) -> None:
    settings.MAIN_API_READ_TIMEOUT_SECONDS = 0.2
    deed = run(place("sandbox-timeout"))
    assert (deed.status, deed.timeline[-1]["detail"]) == ("queued", "main_api_timeout")
    assert len(main_api.calls) == 3


def test_a_main_api_that_is_not_there_is_tried_again(place: Place, settings: Any) -> None:
    settings.MAIN_API_BASE_URL = "http://127.0.0.1:9"
    assert run(place()).timeline[-1]["detail"] == "main_api_unavailable"


@pytest.mark.parametrize(
    ("error", "times"),
    [(requests.exceptions.SSLError("x"), 1), (requests.exceptions.ConnectionError("dns"), 3)],
)
def test_faults_of_the_network_put_the_deed_back(
    place: Place, settings: Any, error: Exception, times: int
) -> None:
    settings.MAIN_API_BASE_URL = "https://main.example.com"
    with responses.RequestsMock() as mock:
        mock.post("https://main.example.com/api/generate/grant-deed-ca", body=error)
        assert run(place()).status == "queued"
        assert len(mock.calls) == times


@pytest.mark.parametrize(
    ("status", "asked", "code"),
    [
        ("429 Too Many Requests", 300, "main_api_busy"),
        ("503 Service Unavailable", 50, "main_api_unavailable"),
        ("502 Bad Gateway", 50, "main_api_unavailable"),
    ],
)
def test_a_long_retry_after_is_kept_by_the_queue_and_by_all_workers(
    place: Place, main_api: MainApi, status: str, asked: int, code: str
) -> None:
    main_api.answer = answering(b"", status, Retry_After=str(asked))
    deed, other = run(place("FIRST")), run(place("OTHER"))
    assert len(main_api.calls) == 1, "neither within seconds, nor for another deed"
    assert deed.put_back_for == code
    assert deed.next_attempt_at - timezone.now() > dt.timedelta(seconds=asked - 10)
    assert (other.status, other.attempts) == ("queued", 0)


def test_a_short_retry_after_is_waited_for_at_once(place: Place, main_api: MainApi, settings: Any) -> None:
    settings.MAIN_API_RETRY_SECONDS = 60.0
    main_api.answer = answering(b"", "503 Service Unavailable", Retry_After="0")
    assert run(place()).put_back_for == "main_api_unavailable"
    assert len(main_api.calls) == settings.MAIN_API_ATTEMPTS


def test_a_storage_that_refuses_puts_the_deed_back(place: Place, main_api: MainApi, deed_files: Any) -> None:
    deed_files.write_text("a file where the folder should be")
    deed = run(place())
    assert (deed.status, deed.timeline[-1]["detail"]) == ("queued", "storage_unavailable")


def test_who_waits_is_woken_once_the_deed_can_be_read(
    place: Place, main_api: MainApi, monkeypatch: pytest.MonkeyPatch, transactional_db: None
) -> None:
    monkeypatch.setattr(hints, "send", lambda deed_id: None)
    too_early: list[bool] = []
    monkeypatch.setattr(waiting, "wake", lambda deed_id: too_early.append(connection.in_atomic_block))
    assert run(place()).status == "completed"
    assert run(place("sandbox-400")).status == "failed"
    assert too_early == [False, False]


def test_of_two_workers_one_gets_the_deed(place: Place, main_api: MainApi, transactional_db: None) -> None:
    deed = place()

    def work(_: int) -> None:
        try:
            fulfilment.serve(is_bulk=False)
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    deed.refresh_from_db()
    assert deed.status == "completed"
    assert len(main_api.calls) == 1


def test_a_lost_lease_refuses_the_completion(place: Place, main_api: MainApi, settled: Any) -> None:
    deed = place()
    lease = claim(deed)
    Deed.objects.filter(pk=deed.pk).update(lease_expires_at=timezone.now() - dt.timedelta(seconds=1))
    assert sweeping.sweep()["recovered"] == 1
    assert not deed.renew(lease, now=timezone.now())
    assert not deed.complete(lease, now=timezone.now(), name="x", sha256="x", size=1, pages=1)
    deed = run(Deed.objects.get(pk=deed.pk))
    assert (deed.status, deed.crashes) == ("completed", 1)
    assert settled == [("completed", True)]


def test_a_deed_that_ends_its_workers_is_given_to_no_more(
    place: Place, settings: Any, settled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DEED_MAX_CRASHES = 2
    woken: list[Any] = []
    monkeypatch.setattr(waiting, "wake", woken.append)
    deed = place()
    for _ in range(2):
        assert claim(deed)
        Deed.objects.filter(pk=deed.pk).update(lease_expires_at=timezone.now())
        sweeping.sweep()
        deed.refresh_from_db()
    assert (deed.status, deed.failure_code) == ("failed", "renderer_crashed")
    assert settled == [("failed", True)]
    assert woken == [deed.pk], "who waits for it need not wait any longer"
    assert ordering.requeue(deed)
    assert claim(deed)
    Deed.objects.filter(pk=deed.pk).update(lease_expires_at=timezone.now())
    sweeping.sweep()
    deed.refresh_from_db()
    assert deed.status == "queued", "staff gave it all its attempts again"


def test_the_sweeper_hints_at_what_no_message_is_under_way_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    hinted: list[str] = []
    monkeypatch.setattr(hints, "send", hinted.append)
    deed = place()
    assert sweeping.sweep()["hinted"] == 0, "its own message is on its way"
    Deed.objects.update(hinted_at=None)
    assert sweeping.sweep()["hinted"] == 1
    assert sweeping.sweep()["hinted"] == 0
    assert hinted == [str(deed.pk)]


def test_a_broker_that_is_away_costs_no_order(
    api: Api, order: Orders, monkeypatch: pytest.MonkeyPatch, transactional_db: None
) -> None:
    from kombu.exceptions import OperationalError

    def away(deed_id: str) -> None:
        raise OperationalError

    monkeypatch.setattr(hints, "send", away)
    assert api.post("/v2/deeds", order()).status_code == 202
    assert Deed.objects.claimable(timezone.now()).filter(hinted_at=None).count() == 1


def test_no_fact_of_an_order_is_logged(
    place: Place, main_api: MainApi, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    run(place())
    run(place("sandbox-503-9"))
    for fact in ("ALICE", "BOB JONES", "8381-021-001", "123 Main", "main-api-token"):
        assert fact not in caplog.text
