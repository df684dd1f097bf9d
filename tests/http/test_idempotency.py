"""`Idempotency-Key`: a request that is sent again is done once, and answered as before."""

import datetime as dt
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import time_machine
from django.db import DatabaseError, OperationalError, connection

from deeds import hints, ordering, tasks, waiting
from deeds.models import Deed
from keys.models import Partner
from partner_api.http import tasks as http_tasks
from partner_api.http.models import KeptAnswer
from tests.api import Api, errors_of
from tests.conftest import MainApi

Orders = Callable[..., dict[str, Any]]
KEY = {"Idempotency_Key": '"8e03978e-40d5-43dd-bc93-6894a57f9324"'}


def v1_order(order_id: str = "V1-1") -> dict[str, Any]:
    return {
        "order_id": order_id,
        "property_address": "123 Main St",
        "parties": {"grantor": "ALICE SMITH", "grantee": "BOB JONES"},
        "data": {
            "county": "Los Angeles",
            "apn": "8381-021-001",
            "legal_description": "LOT 1 OF TRACT NO. 6654",
            "dtt": {"is_exempt": True, "exemption_reason": "R&T 11930"},
        },
    }


def test_it_works(api: Api, order: Orders) -> None:
    first = api.post("/v2/deeds", order(), **KEY)
    again = api.post("/v2/deeds", order(), **KEY)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.content == first.content
    assert again["Location"] == first["Location"]
    assert again["Content-Type"] == first["Content-Type"]
    assert again["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first
    assert again["X-Request-ID"] != first["X-Request-ID"]
    assert Deed.objects.count() == 1


def test_a_replay_is_the_first_answer_though_the_deed_went_on(
    api: Api, order: Orders, main_api: MainApi
) -> None:
    first = api.post("/v2/deeds", order(), **KEY)
    tasks.serve(first.json()["id"])
    again = api.post("/v2/deeds", order(), **KEY)
    assert (again.status_code, again.json()["status"]) == (202, "queued")


@pytest.mark.parametrize("key", ["plain-key", '"plain-key"', ' "plain-key" '])
def test_quotes_do_not_make_another_key(api: Api, order: Orders, key: str) -> None:
    api.post("/v2/deeds", order(), Idempotency_Key="plain-key")
    assert api.post("/v2/deeds", order(), Idempotency_Key=key)["Idempotent-Replayed"] == "true"
    assert KeptAnswer.objects.count() == 1


@pytest.mark.parametrize("key", ["", '""', "a b", "ä", '"a', "x" * 256, '"a", "b"', "a,b", "a\\\\b"])
def test_a_malformed_key_is_an_error_and_nothing_is_done(api: Api, order: Orders, key: str) -> None:
    answer = api.post("/v2/deeds", order(), Idempotency_Key=key)
    assert errors_of(answer) == {"/Idempotency-Key": "invalid_idempotency_key"}
    assert answer.json()["errors"][0]["in"] == "header"
    assert not Deed.objects.exists()


def test_key_order_and_white_space_do_not_make_another_body(api: Api, order: Orders) -> None:
    first = api.post("/v2/deeds", order(), **KEY)
    shuffled = json.dumps(dict(reversed(order().items())), indent=7).encode()
    assert api.post("/v2/deeds", shuffled, **KEY).content == first.content


@pytest.mark.parametrize("change", [{"vesting": "a married man"}, {"order_id": "OTHER"}])
def test_the_same_key_with_another_body_is_a_mismatch(
    api: Api, order: Orders, change: dict[str, Any]
) -> None:
    api.post("/v2/deeds", order(), **KEY)
    answer = api.post("/v2/deeds", order(**change), **KEY)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")
    assert Deed.objects.count() == 1


@pytest.mark.parametrize("path", ["/v2/deeds/batch", "/v1/deeds/quitclaim"])
def test_the_same_key_at_another_route_is_a_mismatch(api: Api, order: Orders, path: str) -> None:
    api.post("/v2/deeds", order(), **KEY)
    answer = api.post(path, {"orders": [order()]}, **KEY)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")


def test_another_partner_or_mode_has_keys_of_its_own(
    api: Api, stranger: Api, acme: Partner, order: Orders
) -> None:
    test_mode = Api.of(acme, environment="test")
    answers = [each.post("/v2/deeds", order(), **KEY) for each in (api, stranger, test_mode)]
    assert [answer.status_code for answer in answers] == [202] * 3
    assert len({answer.json()["id"] for answer in answers}) == 3
    assert not any("Idempotent-Replayed" in answer for answer in answers)


def test_what_one_partner_waits_for_changes_no_answer_of_another(
    api: Api,
    stranger: Api,
    order: Orders,
    main_api: MainApi,
    monkeypatch: pytest.MonkeyPatch,
    transactional_db: None,
) -> None:
    """Their requests and keys are the same to the byte."""
    monkeypatch.setattr(hints, "send", lambda deed_id: None)
    kept = api.post("/v2/deeds", order(), **KEY)
    # Whose turn it is comes first, and that is the other one's.
    monkeypatch.setattr(hints, "send", lambda deed_id: [tasks.serve(deed_id) for _ in range(2)])
    assert stranger.post("/v2/deeds", order(), Prefer="wait=10", **KEY).status_code == 201
    again = api.post("/v2/deeds", order(), **KEY)
    assert again["Idempotent-Replayed"] == "true"
    assert again.content == kept.content


def test_another_key_of_the_same_partner_replays(api: Api, acme: Partner, order: Orders) -> None:
    first = api.post("/v2/deeds", order(), **KEY)
    assert Api.of(acme).post("/v2/deeds", order(), **KEY).content == first.content


def test_who_may_not_order_gets_no_replay(api: Api, acme: Partner, order: Orders) -> None:
    api.post("/v2/deeds", order(), **KEY)
    answer = Api.of(acme, scopes=["deed:read"]).post("/v2/deeds", order(), **KEY)
    assert answer.status_code == 403


def test_a_refusal_is_not_kept_so_the_mended_order_may_use_the_key(api: Api, order: Orders) -> None:
    assert api.post("/v2/deeds", order(vesting=""), **KEY).status_code == 422
    assert api.post("/v2/deeds", order(), **KEY).status_code == 202
    assert KeptAnswer.objects.count() == 1


def test_a_conflict_is_not_kept(api: Api, order: Orders) -> None:
    first = api.post("/v2/deeds", order()).json()
    assert api.post("/v2/deeds", order(vesting="a couple"), **KEY).status_code == 409
    api.post(f"/v2/deeds/{first['id']}/cancel")
    assert api.post("/v2/deeds", order(vesting="a couple"), **KEY).status_code == 202


def test_a_key_is_remembered_for_a_day(api: Api, order: Orders) -> None:
    with time_machine.travel(dt.datetime(2026, 11, 24, 12, tzinfo=dt.UTC), tick=False) as clock:
        first = api.post("/v2/deeds", order(), **KEY)
        clock.shift(24 * 3600 - 1)
        assert api.post("/v2/deeds", order(), **KEY).content == first.content
        clock.shift(2)
        later = api.post("/v2/deeds", order(vesting="a couple", order_id="NEW"), **KEY)
        assert later.status_code == 202
        assert later.json()["id"] != first.json()["id"]
        assert (
            api.post("/v2/deeds", order(vesting="a couple", order_id="NEW"), **KEY).content == later.content
        )


def test_expired_keys_are_removed_and_others_are_not(api: Api, order: Orders) -> None:
    api.post("/v2/deeds", order(), **KEY)
    http_tasks.purge_kept_answers()
    assert KeptAnswer.objects.count() == 1
    with time_machine.travel(dt.timedelta(hours=25)):
        http_tasks.purge_kept_answers()
    assert not KeptAnswer.objects.exists()


def test_what_is_kept_can_not_be_read_in_the_database(api: Api, order: Orders) -> None:
    api.post("/v2/deeds", order(), **KEY)
    assert "ALICE" not in KeptAnswer.objects.get().headers_and_body


def test_a_batch_is_done_once_as_a_whole(api: Api, order: Orders) -> None:
    orders = {"orders": [order(order_id="B-1"), order(order_id="B-2", vesting="")]}
    first = api.post("/v2/deeds/batch", orders, **KEY)
    again = api.post("/v2/deeds/batch", orders, **KEY)
    assert [result["status"] for result in first.json()["data"]] == [202, 422]
    assert (again.status_code, again.content) == (207, first.content)
    assert again["Idempotent-Replayed"] == "true"
    assert Deed.objects.count() == 1


def test_the_first_version_has_keys_too(api: Api, settings: Any) -> None:
    settings.V1_WAIT_SECONDS = 0
    first = api.post("/v1/deeds/quitclaim", v1_order(), **KEY)
    again = api.post("/v1/deeds/quitclaim", v1_order(), **KEY)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.content == first.content


def test_a_method_that_creates_nothing_ignores_the_key(api: Api, order: Orders) -> None:
    deed = api.post("/v2/deeds", order()).json()
    assert api.get(f"/v2/deeds/{deed['id']}", **KEY).status_code == 200
    assert not KeptAnswer.objects.exists()


# --- two at once, and crashes -------------------------------------------------------------------


def scope_of(api: Api) -> str:
    return f"{api.partner.pk}:{api.key.environment}"


def test_while_the_first_runs_the_second_is_told_to_wait_and_a_crash_frees_the_key(
    api: Api, order: Orders, transactional_db: None
) -> None:
    """The first is another process, of which only its transaction matters; then it dies."""
    database = connection.settings_dict
    first = psycopg.connect(
        host=database["HOST"],
        port=database["PORT"],
        user=database["USER"],
        password=database["PASSWORD"],
        dbname=database["NAME"],
    )
    name = f"idempotency:{scope_of(api)}:k-1"
    first.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", [name])
    answer = api.post("/v2/deeds", order(), Idempotency_Key="k-1")
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_in_progress")
    assert int(answer["Retry-After"]) >= 1
    assert not Deed.objects.exists()
    assert api.post("/v2/deeds", order(), Idempotency_Key="k-2").status_code == 202, "other keys are free"
    first.close()
    assert api.post("/v2/deeds", order(), Idempotency_Key="k-1").status_code in {200, 202}


def test_of_many_at_once_one_is_done(
    api: Api, order: Orders, transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "send", lambda deed_id: None)
    gate = threading.Barrier(6)

    def send(_: int) -> Any:
        try:
            gate.wait()
            return api.post("/v2/deeds", order(), **KEY)
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(send, range(6)))
    codes = sorted(answer.status_code for answer in answers)
    assert set(codes) <= {202, 409}
    assert 202 in codes
    assert {a.json()["code"] for a in answers if a.status_code == 409} <= {"idempotency_in_progress"}
    assert len({a.content for a in answers if a.status_code == 202}) == 1
    assert Deed.objects.count() == 1


def test_without_its_record_there_is_no_effect(
    api: Api, order: Orders, transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(hints, "send", sent.append)

    def breaks(*_: Any) -> None:
        raise DatabaseError

    with monkeypatch.context() as patch:
        patch.setattr(KeptAnswer, "store", breaks)
        assert api.post("/v2/deeds", order(), **KEY).status_code == 500
    assert not Deed.objects.exists()
    assert sent == []
    assert api.post("/v2/deeds", order(), **KEY).status_code == 202
    assert len(sent) == 1


def test_a_crash_in_the_middle_leaves_neither_effect_nor_record(
    api: Api, order: Orders, transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ordering.place

    def dies(*args: Any) -> None:
        place(*args)
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(ordering, "place", dies)
        with pytest.raises(SystemExit):
            api.post("/v2/deeds", order(), **KEY)
    assert not Deed.objects.exists()
    assert not KeptAnswer.objects.exists()
    assert api.post("/v2/deeds", order(), **KEY).status_code == 202


def test_a_crash_after_the_commit_is_answered_by_the_replay(
    api: Api, order: Orders, transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: Any, **__: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(waiting, "wait_for", dies)
        with pytest.raises(SystemExit):
            api.post("/v2/deeds", order(), Prefer="wait=5", **KEY)
    again = api.post("/v2/deeds", order(), Prefer="wait=5", **KEY)
    assert (again.status_code, again["Idempotent-Replayed"]) == (202, "true")
    assert again.json()["id"] == str(Deed.objects.get().pk)


@pytest.mark.parametrize("headers", [KEY, {}])
def test_a_database_that_leaves_while_an_order_waits_does_not_deny_it(
    api: Api, order: Orders, transactional_db: None, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    def leaves(*_: Any, **__: Any) -> None:
        raise OperationalError

    monkeypatch.setattr(waiting, "wait_for", leaves)
    answer = api.post("/v2/deeds", order(), Prefer="wait=5", **headers)
    assert answer.status_code == 202
    assert answer.json()["id"] == str(Deed.objects.get().pk)


def test_what_was_waited_for_is_what_is_replayed(
    api: Api, order: Orders, main_api: MainApi, monkeypatch: pytest.MonkeyPatch, transactional_db: None
) -> None:
    monkeypatch.setattr(hints, "send", tasks.serve)
    first = api.post("/v2/deeds", order(), Prefer="wait=10", **KEY)
    again = api.post("/v2/deeds", order(), Prefer="wait=10", **KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert len(main_api.calls) == 1


def test_a_deed_that_failed_while_waited_for_frees_the_key(
    api: Api, main_api: MainApi, monkeypatch: pytest.MonkeyPatch, transactional_db: None
) -> None:
    monkeypatch.setattr(hints, "send", tasks.serve)
    failed = api.post("/v1/deeds/quitclaim", v1_order("sandbox-400"), **KEY)
    assert (failed.status_code, failed.json()["code"]) == (502, "deed_failed")
    assert not KeptAnswer.objects.exists()
    again = api.post("/v1/deeds/quitclaim", v1_order("sandbox-400"), **KEY)
    assert again.json()["external_deed_id"] != failed.json()["external_deed_id"]


def test_the_header_is_documented_where_it_is_honoured(client: Any) -> None:
    paths = client.get("/schema/", headers={"Accept": "application/json"}).json()["paths"]
    for path in ("/v2/deeds", "/v2/deeds/batch", "/v1/deeds/{deed}"):
        operation = paths[path]["post"]
        assert "Idempotency-Key" in {p["name"] for p in operation["parameters"] if p["in"] == "header"}
        assert "idempotency_in_progress" in operation["responses"]["409"]["description"]
        assert "idempotency_mismatch" in operation["responses"]["422"]["description"]
    assert "parameters" not in paths["/v2/deeds/validate"]["post"]
