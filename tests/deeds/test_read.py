"""Reading deeds: one, lists, the PDF and its link."""

import datetime as dt
import hashlib
import io
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import time_machine
from django.test import Client
from pypdf import PdfReader

from deeds import hints, storage, tasks
from deeds.models import Deed
from keys.models import Partner
from tests.api import Api, errors_of
from tests.conftest import MainApi

Orders = Callable[..., dict[str, Any]]
ABSENT = "01900000-0000-7000-8000-000000000000"


@pytest.fixture
def completed(api: Api, order: Orders, main_api: MainApi) -> dict[str, Any]:
    deed_id = api.post("/v2/deeds", order()).json()["id"]
    tasks.serve(deed_id)
    deed: dict[str, Any] = api.get(f"/v2/deeds/{deed_id}").json()
    return deed


def status_of(client: Client, path: str) -> int:
    answer = client.get(path)
    answer.close()
    return answer.status_code


def path_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def test_a_completed_deed_has_its_pdf(completed: dict[str, Any], client: Client) -> None:
    assert completed["status"] == "completed"
    assert completed["completed_at"]
    assert [entry["status"] for entry in completed["timeline"]] == ["queued", "rendering", "completed"]
    answer = client.get(path_of(completed["pdf"]["url"]))
    content = answer.getvalue()
    answer.close()
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/pdf"
    assert answer["Content-Disposition"] == 'attachment; filename="grant-deed-ORD-123.pdf"'
    assert answer["Cache-Control"] == "private, no-store"
    assert hashlib.sha256(content).hexdigest() == completed["pdf"]["sha256"]
    assert len(content) == completed["pdf"]["bytes"]
    text = "".join(page.extract_text() for page in PdfReader(io.BytesIO(content)).pages)
    for fact in ("ALICE SMITH", "BOB JONES", "8381-021-001", "Los Angeles"):
        assert fact in text


def test_the_pdf_call_redirects_to_a_link(completed: dict[str, Any], api: Api, client: Client) -> None:
    answer = api.get(f"/v2/deeds/{completed['id']}/pdf", Accept="application/pdf")
    assert answer.status_code == 302
    assert answer["Cache-Control"] == "no-store"
    assert status_of(client, path_of(answer["Location"])) == 200


def test_a_pdf_that_is_not_ready_is_a_conflict(api: Api, order: Orders) -> None:
    deed = api.post("/v2/deeds", order()).json()
    answer = api.get(f"/v2/deeds/{deed['id']}/pdf")
    assert (answer.status_code, answer.json()["code"]) == (409, "pdf_not_ready")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda url: url[:-1] + ("A" if url[-1] != "A" else "B"),
        lambda url: url.partition("&")[0],
        lambda url: url.partition("?")[0],
        lambda url: url.replace("expires=", "expires=9"),
        lambda url: url.replace("expires=", "expires=x"),
    ],
    ids=["signature changed", "no signature", "no query", "later", "not a number"],
)
def test_a_spoilt_link_is_no_page(
    completed: dict[str, Any], client: Client, spoil: Callable[[str], str]
) -> None:
    answer = client.get(spoil(path_of(completed["pdf"]["url"])))
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_link_is_for_one_deed(completed: dict[str, Any], client: Client) -> None:
    other = path_of(completed["pdf"]["url"]).replace(completed["id"], ABSENT)
    assert client.get(other).status_code == 404


def test_a_link_expires_after_a_day(completed: dict[str, Any], client: Client) -> None:
    url = path_of(completed["pdf"]["url"])
    expires_at = dt.datetime.fromisoformat(completed["pdf"]["expires_at"])
    for seconds, expected in ((-1, 200), (0, 404)):
        with time_machine.travel(expires_at + dt.timedelta(seconds=seconds), tick=False):
            assert status_of(client, url) == expected


def test_a_pdf_that_the_storage_lost_is_not_found(completed: dict[str, Any], client: Client) -> None:
    storage.remove(Deed.objects.get())
    assert client.get(path_of(completed["pdf"]["url"])).status_code == 404


def test_what_is_foreign_absent_or_of_the_other_mode_looks_the_same(
    completed: dict[str, Any], api: Api, stranger: Api, acme: Partner
) -> None:
    test_mode = Api.of(acme, environment="test")
    calls: list[Callable[[Api, str], Any]] = [
        lambda who, deed: who.get(f"/v2/deeds/{deed}"),
        lambda who, deed: who.get(f"/v2/deeds/{deed}/pdf"),
        lambda who, deed: who.post(f"/v2/deeds/{deed}/cancel"),
        lambda who, deed: who.get(f"/v1/deeds/{deed}"),
    ]
    for make in calls:
        absent = make(api, ABSENT)
        assert absent.status_code == 404
        for who in (stranger, test_mode):
            answer = make(who, completed["id"])
            assert answer.status_code == 404
            same = ("type", "title", "status", "detail", "code")
            assert [answer.json()[name] for name in same] == [absent.json()[name] for name in same]


@pytest.mark.parametrize("path", ["/v2/deeds/not-an-id", "/v2/deeds/123", "/v2/nothing"])
def test_what_is_no_id_is_not_found(api: Api, path: str) -> None:
    assert api.get(path).json()["code"] == "not_found"


def test_the_list_is_newest_first_and_goes_both_ways(api: Api, order: Orders) -> None:
    ids = [api.post("/v2/deeds", order(order_id=f"O-{n}")).json()["id"] for n in range(5)]
    first = api.get("/v2/deeds?limit=2").json()
    assert [deed["id"] for deed in first["data"]] == ids[:2:-1]
    assert first["previous"] is None
    second = api.get(path_of(first["next"])).json()
    third = api.get(path_of(second["next"])).json()
    assert [deed["id"] for deed in second["data"] + third["data"]] == ids[2::-1]
    assert third["next"] is None
    assert api.get(path_of(third["previous"])).json()["data"] == second["data"]


def test_the_list_holds_own_deeds_of_the_mode_only(
    api: Api, stranger: Api, acme: Partner, order: Orders
) -> None:
    stranger.post("/v2/deeds", order())
    Api.of(acme, environment="test").post("/v2/deeds", order())
    assert api.get("/v2/deeds").json() == {"data": [], "next": None, "previous": None}


def test_the_list_can_be_narrowed(api: Api, order: Orders) -> None:
    grant = api.post("/v2/deeds", order()).json()
    tax = api.post("/v2/deeds", order("tax", order_id="T-9")).json()
    api.post(f"/v2/deeds/{tax['id']}/cancel")

    def ids(query: str) -> list[str]:
        return [deed["id"] for deed in api.get(f"/v2/deeds?{query}").json()["data"]]

    assert ids("status=queued") == [grant["id"]]
    assert ids("status=cancelled") == [tax["id"]]
    assert ids("deed_type=tax") == [tax["id"]]
    assert ids("order_id=ORD-123") == [grant["id"]]
    assert ids("created_after=3675-03-16T10:44:30-22:40") == []
    assert ids("created_after=0001-01-01T00:00:00%2B23:00") == [tax["id"], grant["id"]]
    assert ids("livemode=true") == [tax["id"], grant["id"]]
    assert ids("livemode=false") == []
    assert ids(f"created_after={grant['created_at']}") == [tax["id"]]
    assert ids(f"created_before={tax['created_at']}") == [grant["id"]]


@pytest.mark.parametrize(
    ("query", "pointer", "code"),
    [
        ("status=done", "/status", "invalid_value"),
        ("stat=queued", "/stat", "unknown_parameter"),
        ("limit=0", "/limit", "invalid_value"),
        ("limit=101", "/limit", "invalid_value"),
        ("limit=many", "/limit", "invalid_value"),
        ("created_after=yesterday", "/created_after", "invalid_value"),
        ("created_after=2026-11-24T08:00:00", "/created_after", "invalid_value"),
        ("order_id=%00", "/order_id", "invalid_value"),
        ("livemode=maybe", "/livemode", "invalid_value"),
        ("cursor=abc", "/cursor", "invalid_cursor"),
        ("cursor=cD1ub3QtYS11dWlk", "/cursor", "invalid_cursor"),
        ("status=queued&status=failed", "/status", "repeated"),
    ],
)
def test_a_wrong_parameter_is_named(api: Api, query: str, pointer: str, code: str) -> None:
    answer = api.get(f"/v2/deeds?{query}")
    assert errors_of(answer) == {pointer: code}
    assert answer.json()["errors"][0]["in"] == "query"


def test_a_queued_deed_can_be_cancelled_once(api: Api, order: Orders) -> None:
    deed = api.post("/v2/deeds", order()).json()
    answer = api.post(f"/v2/deeds/{deed['id']}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    again = api.post(f"/v2/deeds/{deed['id']}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "not_cancellable")


def test_a_cancelled_deed_is_not_rendered(api: Api, order: Orders, main_api: MainApi) -> None:
    deed = api.post("/v2/deeds", order()).json()
    api.post(f"/v2/deeds/{deed['id']}/cancel")
    tasks.serve(deed["id"])
    assert main_api.calls == []
    assert api.get(f"/v2/deeds/{deed['id']}").json()["status"] == "cancelled"


def test_a_completed_deed_can_not_be_cancelled(completed: dict[str, Any], api: Api) -> None:
    assert api.post(f"/v2/deeds/{completed['id']}/cancel").status_code == 409
    assert Deed.objects.get().status == "completed"


def test_validation_says_the_same_and_stores_nothing(api: Api, order: Orders) -> None:
    answer = api.post("/v2/deeds/validate", order("tax", covenants="none"))
    assert answer.status_code == 200
    assert answer.json()["valid"] is True
    assert [one["pointer"] for one in answer.json()["warnings"]] == ["/covenants"]
    assert errors_of(api.post("/v2/deeds/validate", order(vesting=" "))) == {"/vesting": "blank"}
    assert not Deed.objects.exists()


def test_a_batch_has_a_result_for_each_order(api: Api, order: Orders) -> None:
    api.post("/v2/deeds", order(order_id="A"))
    orders = [
        order(order_id="A"),
        order(order_id="B"),
        order(order_id=""),
        5,
        order(order_id="B", vesting="x"),
    ]
    answer = api.post("/v2/deeds/batch", {"orders": orders})
    assert answer.status_code == 207
    results = answer.json()["data"]
    assert [result["status"] for result in results] == [200, 202, 422, 422, 409]
    assert results[1]["deed"]["order_id"] == "B"
    assert results[2]["problem"]["errors"][0]["pointer"] == "/order_id"
    assert results[2]["problem"]["request_id"] == answer["X-Request-ID"]
    assert Deed.objects.count() == 2


def test_the_orders_of_a_batch_are_one_deed_each(
    api: Api, order: Orders, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(hints, "send_bulk", sent.append)
    twice = [order(order_id="A"), order("tax", order_id="A"), order(order_id="A")]
    with django_capture_on_commit_callbacks(execute=True):
        results = api.post("/v2/deeds/batch", {"orders": twice}).json()["data"]
    assert [result["status"] for result in results] == [202, 202, 200]
    ids = [result["deed"]["id"] for result in results]
    assert ids[0] == ids[2] != ids[1]
    assert sent == sorted(set(ids))
    with django_capture_on_commit_callbacks(execute=True):
        again = api.post("/v2/deeds/batch", {"orders": twice}).json()["data"]
    assert [result["status"] for result in again] == [200, 200, 200]
    assert [result["deed"]["id"] for result in again] == ids
    assert len(sent) == 2


def test_a_batch_may_replace_a_deed(api: Api, order: Orders, main_api: MainApi) -> None:
    first = api.post("/v2/deeds", order()).json()["id"]
    tasks.serve(first)
    corrected = order(vesting="a married man", reissue_of=first)
    results = api.post("/v2/deeds/batch", {"orders": [order("tax"), corrected]}).json()["data"]
    assert [result["status"] for result in results] == [202, 202]
    assert results[1]["deed"]["reissue_of"] == first


@pytest.mark.parametrize("size", [2, 500])
def test_a_batch_costs_a_constant_number_of_queries(
    api: Api, order: Orders, size: int, nothing_is_due: None, django_assert_max_num_queries: Any
) -> None:
    orders = [order(order_id=f"B-{number}") for number in range(size)]
    api.post("/v2/deeds", order())  # the key is known from here on, and the period is there
    with django_assert_max_num_queries(8):
        answer = api.post("/v2/deeds/batch", {"orders": orders})
    assert {result["status"] for result in answer.json()["data"]} == {202}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "required"),
        ({"orders": []}, "required"),
        ({"orders": {}}, "invalid_type"),
        ({"orders": [1] * 501}, "too_many"),
    ],
)
def test_a_wrong_batch_is_refused_as_a_whole(api: Api, body: Any, code: str) -> None:
    assert errors_of(api.post("/v2/deeds/batch", body)) == {"/orders": code}


def test_the_catalog_has_five_types_with_schema_and_example(api: Api) -> None:
    data = api.get("/v2/deed-types").json()["data"]
    assert [one["deed_type"] for one in data] == ["grant", "quitclaim", "interspousal", "warranty", "tax"]
    for one in data:
        assert api.get(f"/v2/deed-types/{one['deed_type']}").json() == one
        assert api.post("/v2/deeds/validate", one["example"]).status_code == 200


def test_an_unknown_type_says_which_there_are(api: Api) -> None:
    answer = api.get("/v2/deed-types/gant")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "quitclaim" in answer.json()["detail"]
    assert "Did you mean 'grant'?" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "queries"),
    [("/v2/deeds/{id}", 1), ("/v2/deeds/{id}/pdf", 1), ("/v2/deeds", 1), ("/v1/deeds/{id}", 1)],
)
def test_a_read_costs_a_constant_number_of_queries(
    api: Api, order: Orders, path: str, queries: int, nothing_is_due: None, django_assert_num_queries: Any
) -> None:
    for number in range(6):
        deed = api.post("/v2/deeds", order(order_id=f"O-{number}")).json()
    with django_assert_num_queries(queries):
        api.get(path.format(id=deed["id"]))


def test_an_order_costs_a_constant_number_of_queries(
    api: Api, order: Orders, nothing_is_due: None, django_assert_max_num_queries: Any
) -> None:
    api.post("/v2/deeds", order(order_id="O-0"))  # the key is known from here on, and the period is there
    with django_assert_max_num_queries(6):  # a savepoint around the insert, the place in the quota
        assert api.post("/v2/deeds", order()).status_code == 202
    with django_assert_max_num_queries(6):  # rolled back, and a look at the one before
        assert api.post("/v2/deeds", order()).status_code == 200
