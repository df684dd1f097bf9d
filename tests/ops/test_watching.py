"""Staff are told once when something begins and once when it is over, by mail and by chat."""

import datetime as dt
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import uuid_utils.compat
from django.core import mail
from django.db import connection
from django.utils import timezone

from billing.models import ApiUsage
from deeds.models import Deed
from keys.models import Partner
from partner_api.ops import watching
from partner_api.ops.models import Incident
from partner_api.ops.watching import Finding
from tests.api import Api


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def chat(settings: Any) -> Iterator[list[str]]:
    """A chat's webhook on real HTTP. It refuses while `said` begins with None."""
    said: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        if said[:1] == [None]:
            start_response("500 Internal Server Error", [])
            return [b""]
        said.append(json.loads(body)["text"])
        start_response("200 OK", [])
        return [b"ok"]

    with make_server("127.0.0.1", 0, app, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        settings.STAFF_WEBHOOK_URL = f"http://127.0.0.1:{server.server_port}/hook"
        try:
            yield said
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def findings(monkeypatch: Any) -> list[Finding]:
    found: list[Finding] = []
    monkeypatch.setattr(watching, "_watches", {"trouble": lambda: found})
    return found


def test_it_works(db: None, settings: Any, chat: list[str], findings: list[Finding]) -> None:
    settings.STAFF_EMAILS = ["ops@example.com"]
    watching.watch()
    assert (mail.outbox, chat) == ([], [])
    findings.append(Finding("dp_live_1", "it is refused often"))
    for _ in range(5):
        watching.watch()
    assert chat == ["[test] trouble: it is refused often"]
    assert [message.subject for message in mail.outbox] == ["[test] trouble: it is refused often"]
    findings.clear()
    for _ in range(5):
        watching.watch()
    assert chat[1:] == ["[test] over: trouble: it is refused often"]
    assert len(mail.outbox) == 2
    findings.append(Finding("dp_live_1", "it is refused often"))
    watching.watch()
    assert len(chat) == 3
    assert Incident.objects.count() == 2


def test_two_that_are_concerned_are_two_incidents(db: None, chat: list[str], findings: list[Finding]) -> None:
    findings += [Finding("a", "a is refused"), Finding("b", "b is refused")]
    watching.watch()
    findings.pop()
    watching.watch()
    assert chat[2:] == ["[test] over: trouble: b is refused"]


def test_a_chat_that_is_away_is_told_later(db: None, chat: list[Any], findings: list[Finding]) -> None:
    chat.append(None)
    findings.append(Finding("", "x"))
    watching.watch()
    assert Incident.objects.get().told_at is None
    chat.clear()
    watching.watch()
    assert chat == ["[test] trouble: x"]


def test_what_is_over_before_it_was_told_is_not_told(
    db: None, chat: list[Any], findings: list[Finding]
) -> None:
    chat.append(None)
    findings.append(Finding("", "x"))
    watching.watch()
    findings.clear()
    chat.clear()
    watching.watch()
    assert chat == []


def test_a_watch_that_fails_ends_no_incident(
    db: None, chat: list[str], findings: list[Finding], monkeypatch: Any
) -> None:
    findings.append(Finding("", "x"))
    watching.watch()

    def broken() -> list[Finding]:
        raise ConnectionError

    watching.register_watch("trouble", broken)
    watching.watch()
    assert Incident.objects.get().ended_at is None
    assert len(chat) == 1


def test_many_at_once_tell_once(transactional_db: None, chat: list[str], findings: list[Finding]) -> None:
    findings.append(Finding("", "x"))

    def look(_: int) -> None:
        try:
            watching.watch()
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(look, range(12)))
    assert chat == ["[test] trouble: x"]


def test_a_main_api_that_fails_is_told_and_its_return(
    db: None, chat: list[str], acme: Partner, order: Any, settings: Any
) -> None:
    settings.WATCH_WAITING_DEEDS = 2
    api = Api.of(acme)
    for number in range(2):
        api.post("/v2/deeds", order() | {"order_id": f"W-{number}"})
    watching.watch()
    assert chat == []
    Deed.objects.update(attempts=1, next_attempt_at=timezone.now())
    watching.watch()
    assert chat == ["[test] main_api_failing: live deeds could not be rendered and wait for another attempt"]
    assert "ALICE" not in chat[0]
    Deed.objects.update(status=Deed.Status.CANCELLED)
    watching.watch()
    assert chat[1].startswith("[test] over: main_api_failing")


def _refused(api: Api, number: int, *, minutes_ago: float = 0.0, status: int = 429) -> None:
    at = timezone.now() - dt.timedelta(minutes=minutes_ago)
    for _ in range(number):
        ApiUsage.objects.create(
            at=at,
            id=uuid_utils.compat.uuid7(),
            partner=api.partner,
            key=api.key,
            livemode=True,
            method="GET",
            route="v2/deeds",
            status=status,
            error_code="rate_limited",
            latency_ms=1.0,
            cost_units=0,
            deeds=0,
            deed_type="",
            bytes_in=0,
            bytes_out=0,
            request_id="r",
        )


def test_a_revoked_key_that_is_tried_without_end_is_no_busy_partner(
    db: None, chat: list[str], api: Api, settings: Any
) -> None:
    settings.WATCH_RATE_LIMITED_PER_KEY = 3
    _refused(api, 9)
    ApiUsage.objects.update(partner=None, livemode=None)
    watching.watch()
    assert chat == []


def test_a_key_that_is_refused_often_is_told_by_its_prefix(
    db: None, chat: list[str], api: Api, stranger: Api, settings: Any
) -> None:
    settings.WATCH_RATE_LIMITED_PER_KEY = 3
    _refused(api, 2)
    _refused(api, 5, minutes_ago=6)
    _refused(stranger, 9, status=200)
    watching.watch()
    assert chat == []
    _refused(api, 1)
    watching.watch()
    what = f"the key {api.key.prefix} of partner {api.partner.pk} is refused for its rate"
    assert chat == [f"[test] rate_limited_key: {what}"]
    ApiUsage.objects.all().delete()
    watching.watch()
    assert chat[1].startswith("[test] over: rate_limited_key")
