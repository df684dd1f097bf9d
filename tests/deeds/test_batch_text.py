"""Text in a batch that is not Unicode: the order it stands in is refused, and the others are not."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from deeds.models import Deed
from tests.api import Api, errors_of

Orders = Callable[..., dict[str, Any]]
Body = dict[str, Any]
BAD = ["\x00", "a\x00b", "\ud800", "\udc00x", "\ude00\ud83c"]


def results(api: Api, orders: list[Any], **headers: str) -> list[dict[str, Any]]:
    answer = api.post("/v2/deeds/batch", {"orders": orders}, **headers)
    assert answer.status_code == 207, answer.content
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def pointers(result: dict[str, Any]) -> dict[str, str]:
    assert result["status"] == 422
    assert result["problem"]["code"] == "validation_error"
    return {error["pointer"]: error["code"] for error in result["problem"]["errors"]}


@pytest.mark.parametrize("text", BAD)
def test_it_works(api: Api, order: Orders, text: str) -> None:
    orders = [order(order_id="1"), order(order_id="2", vesting=text), order(order_id="3")]
    first, second, third = results(api, orders)
    assert (first["status"], third["status"]) == (202, 202)
    assert pointers(second) == {"/vesting": "invalid_characters"}
    assert set(Deed.objects.values_list("order_id", flat=True)) == {"1", "3"}


@pytest.mark.parametrize(
    ("member", "found"),
    [
        ({"order_id": "\x00"}, ["/order_id"]),
        ({"deed_type": "grant\ud800"}, ["/deed_type"]),
        ({"reissue_of": "\udfff"}, ["/reissue_of"]),
        ({"grantors": [{"name": "A"}, {"name": "\x00"}]}, ["/grantors/1/name"]),
        ({"metadata": {"a/b": "\x00", "c": "\ud800"}}, ["/metadata/a~1b", "/metadata/c"]),
        ({"metadata": {"\x00": "a"}}, ["/metadata"]),
        ({"\ud800": "a"}, [""]),
        ({"unknown": [["\x00"]]}, ["/unknown/0/0"]),
    ],
)
def test_it_is_named_by_its_place_in_the_order(
    api: Api, order: Orders, member: Body, found: list[str]
) -> None:
    whole, other = results(api, [order() | member, order(order_id="other")])
    assert pointers(whole) == dict.fromkeys(found, "invalid_characters")
    assert other["status"] == 202
    alone = errors_of(api.post("/v2/deeds", order() | member))
    assert alone == pointers(whole), "as for an order by itself"


@pytest.mark.parametrize("entry", ["\x00", ["\ud800"], {"\x00": 1}])
def test_what_is_no_order_at_all_is_refused_by_itself(api: Api, order: Orders, entry: Any) -> None:
    bad, good = results(api, [entry, order()])
    assert set(pointers(bad).values()) == {"invalid_characters"}
    assert good["status"] == 202


@pytest.mark.parametrize(
    ("around", "pointer"),
    [
        ({"note": "\x00"}, "/note"),
        ({"note": {"a": ["\ud800"]}}, "/note/a/0"),
        ({"note\x00": 1}, ""),
        ({"orders\ud800": []}, ""),
    ],
)
def test_beside_the_orders_it_refuses_the_batch(api: Api, order: Orders, around: Body, pointer: str) -> None:
    body = {"orders": [order(), order(order_id="2", vesting="\x00")]} | around
    assert errors_of(api.post("/v2/deeds/batch", body)) == {pointer: "invalid_characters"}
    assert not Deed.objects.exists()


@pytest.mark.parametrize("body", [{"orders": {"a": "\x00"}}, {"orders": "\ud800"}, [{"orders": ["\x00"]}]])
def test_where_no_list_of_orders_is_it_refuses_the_body(api: Api, body: Any) -> None:
    assert set(errors_of(api.post("/v2/deeds/batch", body)).values()) == {"invalid_characters"}


@pytest.mark.parametrize("path", ["/v2/deeds", "/v2/deeds/validate", "/v1/deeds/grant"])
def test_a_list_of_orders_elsewhere_is_like_any_member(api: Api, path: str) -> None:
    assert errors_of(api.post(path, {"orders": ["\x00"]})) == {"/orders/0": "invalid_characters"}


def test_nesting_too_deep_refuses_the_batch_in_any_order(api: Api, order: Orders) -> None:
    deep: Any = "\x00"
    for _ in range(30):
        deep = [deep]
    answer = api.post("/v2/deeds/batch", {"orders": [order(), deep]})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_json")


def test_a_replay_is_of_the_very_same_text(api: Api, order: Orders) -> None:
    orders = [order(order_id="1"), order(order_id="2", vesting="\x00")]
    first = api.post("/v2/deeds/batch", {"orders": orders}, Idempotency_Key="k")
    shuffled = [dict(reversed(one.items())) for one in orders]
    again = api.post(
        "/v2/deeds/batch", json.dumps({"orders": shuffled}, indent=3).encode(), Idempotency_Key="k"
    )
    assert (again.content, again["Idempotent-Replayed"]) == (first.content, "true")
    for other in ("\x00\x00", "\ud800", "a single man"):
        orders[1]["vesting"] = other
        answer = api.post("/v2/deeds/batch", {"orders": orders}, Idempotency_Key="k")
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")
    assert Deed.objects.count() == 1


def test_the_text_is_not_repeated_in_the_answer(api: Api, order: Orders) -> None:
    bad = order() | {"metadata": {"a": "x\x00y", "\ud800": "z"}}
    answer = api.post("/v2/deeds/batch", {"orders": [bad, order(order_id="2")]}, Idempotency_Key="k")
    assert answer.status_code == 207
    assert not [text for text in (b"u0000", b"ud800", b"\x00") if text in answer.content]
