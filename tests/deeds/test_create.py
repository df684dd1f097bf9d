"""POST /v2/deeds."""

from collections.abc import Callable
from typing import Any

import pytest

from deeds import hints, reading, tasks
from deeds.models import Deed
from keys.models import Partner
from partner_api.http.problems import Problem
from tests.api import Api, errors_of
from tests.conftest import MainApi

Orders = Callable[..., dict[str, Any]]


@pytest.fixture
def enqueued(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    sent: list[str] = []
    monkeypatch.setattr(hints, "send", sent.append)
    return sent


def test_it_works(
    api: Api, order: Orders, enqueued: list[str], django_capture_on_commit_callbacks: Any
) -> None:
    given = order()
    with django_capture_on_commit_callbacks(execute=True):
        answer = api.post("/v2/deeds", given)
    assert answer.status_code == 202
    deed = answer.json()
    assert answer["Location"] == f"http://testserver/v2/deeds/{deed['id']}"
    assert deed["object"] == "deed"
    assert deed["livemode"] is True
    assert deed["status"] == "queued"
    assert deed["order"] == given
    assert deed["pdf"] is None
    assert deed["failure"] is None
    assert deed["warnings"] == []
    assert [entry["status"] for entry in deed["timeline"]] == ["queued"]
    assert enqueued == [deed["id"]]
    stored = Deed.objects.get()
    assert stored.partner == api.partner
    assert stored.request_id == answer["X-Request-ID"]


@pytest.mark.parametrize("deed_type", ["grant", "quitclaim", "interspousal", "warranty", "tax"])
def test_every_type_takes_its_example(api: Api, order: Orders, deed_type: str) -> None:
    assert api.post("/v2/deeds", order(deed_type)).status_code == 202


def test_a_test_key_orders_a_test_deed(acme: Partner, order: Orders) -> None:
    assert Api.of(acme, environment="test").post("/v2/deeds", order()).json()["livemode"] is False


def test_the_same_order_again_is_the_same_deed(api: Api, order: Orders) -> None:
    first = api.post("/v2/deeds", order())
    reordered = dict(reversed(order().items()))
    second = api.post("/v2/deeds", reordered)
    assert (first.status_code, second.status_code) == (202, 200)
    assert second["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first
    assert second.json()["id"] == first.json()["id"]
    assert Deed.objects.count() == 1


def test_the_same_order_with_another_body_is_a_conflict(api: Api, order: Orders) -> None:
    first = api.post("/v2/deeds", order())
    answer = api.post("/v2/deeds", order(vesting="a married man"))
    assert answer.status_code == 409
    problem = answer.json()
    assert problem["code"] == "order_conflict"
    assert problem["deed"] == first.json()["id"]
    assert Deed.objects.count() == 1


def test_another_type_partner_or_mode_is_another_order(
    api: Api, stranger: Api, acme: Partner, order: Orders
) -> None:
    test_mode = Api.of(acme, environment="test")
    answers = [
        api.post("/v2/deeds", order()),
        api.post("/v2/deeds", order("quitclaim")),
        stranger.post("/v2/deeds", order()),
        test_mode.post("/v2/deeds", order()),
    ]
    assert [answer.status_code for answer in answers] == [202] * 4
    assert len({answer.json()["id"] for answer in answers}) == 4


@pytest.mark.parametrize("is_batch", [False, True], ids=["by itself", "in a batch"])
def test_an_order_again_is_the_deed_of_its_own_type_and_mode(
    api: Api, acme: Partner, order: Orders, *, is_batch: bool
) -> None:
    """None of them is taken for another, whichever was there first."""
    test_mode = Api.of(acme, environment="test")
    sent = [(caller, kind) for caller in (api, test_mode) for kind in ("grant", "quitclaim")]

    def send(caller: Api, kind: str) -> tuple[int, str]:
        if is_batch:
            (result,) = caller.post("/v2/deeds/batch", {"orders": [order(kind)]}).json()["data"]
            return result["status"], result["deed"]["id"]
        answer = caller.post("/v2/deeds", order(kind))
        return answer.status_code, answer.json()["id"]

    first = [send(*one) for one in sent]
    assert [status for status, _ in first] == [202] * 4
    assert [send(*one) for one in sent] == [(200, deed_id) for _, deed_id in first]


def test_a_failed_or_cancelled_order_can_be_sent_again(api: Api, order: Orders) -> None:
    first = api.post("/v2/deeds", order()).json()
    assert api.post(f"/v2/deeds/{first['id']}/cancel").status_code == 200
    second = api.post("/v2/deeds", order())
    assert second.status_code == 202
    assert second.json()["id"] != first["id"]


def test_a_corrected_deed_replaces_the_first(
    api: Api, order: Orders, main_api: MainApi, django_capture_on_commit_callbacks: Any
) -> None:
    first = api.post("/v2/deeds", order()).json()
    corrected = order(vesting="a married man", reissue_of=first["id"])
    early = api.post("/v2/deeds", corrected)
    assert (early.status_code, early.json()["code"]) == (409, "order_conflict")
    tasks.serve(first["id"])
    second = api.post("/v2/deeds", corrected)
    assert second.status_code == 202
    assert second.json()["reissue_of"] == first["id"]
    again = api.post("/v2/deeds", corrected)
    assert (again.status_code, again.json()["id"]) == (200, second.json()["id"])
    del corrected["reissue_of"]
    known = api.post("/v2/deeds", corrected)
    assert (known.status_code, known.json()["id"]) == (200, second.json()["id"]), "its facts are the same"
    assert api.get(f"/v2/deeds/{first['id']}").json()["status"] == "completed"


def test_a_foreign_deed_can_not_be_reissued(api: Api, stranger: Api, order: Orders) -> None:
    foreign = stranger.post("/v2/deeds", order()).json()["id"]
    answer = api.post("/v2/deeds", order(reissue_of=foreign))
    assert answer.status_code == 409
    assert answer.json()["errors"][0]["pointer"] == "/reissue_of"


def test_prefer_wait_answers_201_once_completed(
    api: Api, order: Orders, main_api: MainApi, monkeypatch: pytest.MonkeyPatch, transactional_db: None
) -> None:
    monkeypatch.setattr(hints, "send", tasks.serve)
    answer = api.post("/v2/deeds", order(), Prefer="respond-async, wait=10")
    assert answer.status_code == 201
    assert answer["Preference-Applied"] == "wait=10"
    assert answer.json()["pdf"]["sha256"]


def without(body: dict[str, Any], pointer: str) -> dict[str, Any]:
    *parents, last = pointer[1:].split("/")
    target = body
    for parent in parents:
        target = target[parent]
    del target[last]
    return body


@pytest.mark.parametrize(
    ("deed_type", "pointer"),
    [
        *(
            (deed_type, pointer)
            for deed_type in ("grant", "quitclaim", "interspousal", "warranty", "tax")
            for pointer in (
                "/order_id",
                "/property",
                "/property/county",
                "/property/apn",
                "/property/legal_description",
                "/grantors",
                "/grantees",
            )
        ),
        ("grant", "/vesting"),
        ("warranty", "/vesting"),
        ("grant", "/transfer_tax"),
        ("quitclaim", "/transfer_tax"),
        ("warranty", "/transfer_tax"),
        ("interspousal", "/transfer_tax"),
        ("interspousal", "/transfer_tax/exemption_reason"),
        ("quitclaim", "/transfer_tax/exemption_reason"),
        ("grant", "/transfer_tax/exempt"),
        ("grant", "/transfer_tax/amount"),
        ("grant", "/transfer_tax/basis"),
        ("grant", "/transfer_tax/area_type"),
        ("grant", "/transfer_tax/city_name"),
        ("tax", "/tax_sale_ref"),
    ],
)
def test_a_missing_fact_is_named_and_nothing_is_called(
    api: Api, order: Orders, main_api: MainApi, deed_type: str, pointer: str
) -> None:
    answer = api.post("/v2/deeds", without(order(deed_type), pointer))
    assert errors_of(answer) == {pointer: "required"}
    assert not Deed.objects.exists()
    assert main_api.calls == []


@pytest.mark.parametrize(
    ("changes", "pointer", "code", "says"),
    [
        ({"grantors": [{"name": " . "}]}, "/grantors/0/name", "blank", "letter"),
        ({"grantees": [{"name": "—"}]}, "/grantees/0/name", "blank", "letter"),
        ({"deed_type": "grand"}, "/deed_type", "unknown_deed_type", "'grant'"),
        ({"deed_type": None}, "/deed_type", "required", "quitclaim"),
        ({"deed_type": 7}, "/deed_type", "invalid_type", "text"),
        ({"grantor": []}, "/grantor", "unknown_field", "'grantors'"),
        ({"order_id": ""}, "/order_id", "blank", "blank"),
        ({"order_id": " \u3000 "}, "/order_id", "blank", "blank"),
        ({"order_id": 5}, "/order_id", "invalid_type", "text"),
        ({"order_id": "x" * 101}, "/order_id", "too_long", "100"),
        ({"vesting": "a\u0007b"}, "/vesting", "invalid_characters", "U+0007"),
        ({"vesting": "a\u202eb"}, "/vesting", "invalid_characters", "U+202E"),
        ({"vesting": "two\nlines"}, "/vesting", "invalid_characters", "U+000A"),
        ({"grantors": []}, "/grantors", "required", "grantor"),
        ({"grantors": "ALICE"}, "/grantors", "invalid_type", "list"),
        ({"grantors": ["ALICE"]}, "/grantors/0", "invalid_type", "object"),
        ({"grantors": [{"name": "A; B"}]}, "/grantors/0/name", "invalid_characters", "entry of its own"),
        ({"grantors": [{"nam": "A", "name": "B"}]}, "/grantors/0/nam", "unknown_field", "'name'"),
        ({"grantors": [{"name": "A"}] * 10_000}, "/grantors", "too_many", "100"),
        ({"execution_date": "2026-02-30"}, "/execution_date", "invalid_date", "exists"),
        ({"execution_date": "24.11.2026"}, "/execution_date", "invalid_date", "YYYY-MM-DD"),
        ({"metadata": {"a b": "c"}}, "/metadata/a b", "invalid_format", "letters"),
        ({"metadata": {str(n): "v" for n in range(21)}}, "/metadata", "too_many", "20"),
        ({"reissue_of": "x"}, "/reissue_of", "invalid_id", "UUID"),
    ],
)
def test_a_wrong_value_is_named_with_what_to_do(
    api: Api, order: Orders, changes: dict[str, Any], pointer: str, code: str, says: str
) -> None:
    answer = api.post("/v2/deeds", order(**changes))
    assert errors_of(answer) == {pointer: code}
    assert says in answer.json()["errors"][0]["message"]
    assert not Deed.objects.exists()


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"county": "Los Angelos"}, "/property/county", "unknown_county"),
        ({"apn": "  "}, "/property/apn", "blank"),
        ({"legal_description": "x" * 50_001}, "/property/legal_description", "too_long"),
        ({"lot": "1"}, "/property/lot", "unknown_field"),
    ],
)
def test_a_wrong_fact_of_the_property_is_named(
    api: Api, order: Orders, changes: dict[str, Any], pointer: str, code: str
) -> None:
    given = order()
    given["property"] |= changes
    answer = api.post("/v2/deeds", given)
    assert errors_of(answer) == {pointer: code}


_FACTS = {
    "grant": ["vesting", "property/legal_description", "transfer_tax/city_name", "order_id"],
    "quitclaim": ["property/apn", "transfer_tax/exemption_reason"],
    "interspousal": ["grantors/0/name", "transfer_tax/exemption_reason"],
    "warranty": ["vesting", "covenants", "grantees/0/name"],
    "tax": ["tax_sale_ref", "property/address"],
}


@pytest.mark.parametrize("character", "\xad\u061c\u200b\u200d\u200f\u2060\u2064\u2800\u3164\ufeff\ufffd")
@pytest.mark.parametrize(("deed_type", "path"), [(kind, path) for kind in _FACTS for path in _FACTS[kind]])
def test_a_fact_that_nobody_can_see_is_none(order: Orders, deed_type: str, path: str, character: str) -> None:
    for text in (character * 3, f"SMITH{character}"):
        given = order(deed_type)
        *parents, name = path.split("/")
        container: Any = given
        for parent in parents:
            container = container[int(parent) if parent.isdigit() else parent]
        container[name] = text
        with pytest.raises(Problem) as refused:
            reading.read(given)
        (error,) = refused.value.errors
        assert (error.pointer, error.code in {"blank", "invalid_characters"}) == (f"/{path}", True)


@pytest.mark.parametrize("text", ["\U000e0041\U000e0042", "\ufe0f", " \u0301 "])
def test_marks_and_tags_on_nothing_are_blank(api: Api, order: Orders, text: str) -> None:
    assert errors_of(api.post("/v2/deeds", order(vesting=text))) == {"/vesting": "blank"}


def test_the_nearest_county_is_suggested(api: Api, order: Orders) -> None:
    given = order()
    given["property"]["county"] = "San Bernadino"
    assert "San Bernardino" in api.post("/v2/deeds", given).json()["detail"]


@pytest.mark.parametrize("county", ["los angeles", "LOS ANGELES COUNTY", " Los  Angeles "])
def test_a_county_is_known_however_it_is_written(api: Api, order: Orders, county: str) -> None:
    given = order()
    given["property"]["county"] = county
    assert api.post("/v2/deeds", given).status_code == 202


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"amount": "-1.00"}, "/transfer_tax/amount", "invalid_money"),
        ({"amount": "1.005"}, "/transfer_tax/amount", "invalid_money"),
        ({"amount": "1e3"}, "/transfer_tax/amount", "invalid_money"),
        ({"amount": "1,000.00"}, "/transfer_tax/amount", "invalid_money"),
        ({"amount": 825}, "/transfer_tax/amount", "invalid_type"),
        ({"basis": "half"}, "/transfer_tax/basis", "invalid_choice"),
        ({"exempt": "no"}, "/transfer_tax/exempt", "invalid_choice"),
        ({"exempt": 0}, "/transfer_tax/exempt", "invalid_choice"),
        ({"exempt": True}, "/transfer_tax/exemption_reason", "required"),
        ({"exemption_reason": "R&T 11911"}, "/transfer_tax/exemption_reason", "contradiction"),
        ({"ammount": "1.00"}, "/transfer_tax/ammount", "unknown_field"),
    ],
)
def test_a_wrong_tax_declaration_is_named(
    api: Api, order: Orders, changes: dict[str, Any], pointer: str, code: str
) -> None:
    given = order()
    given["transfer_tax"] = {**given["transfer_tax"], **changes}
    assert errors_of(api.post("/v2/deeds", given)) == {pointer: code}


def test_a_taxed_interspousal_transfer_is_refused(api: Api, order: Orders) -> None:
    given = order("interspousal", transfer_tax=order("grant")["transfer_tax"])
    assert errors_of(api.post("/v2/deeds", given)) == {
        "/transfer_tax/exempt": "invalid_choice",
        "/transfer_tax/exemption_reason": "required",
    }


def test_a_county_tax_that_differs_is_a_warning(api: Api, order: Orders) -> None:
    tax = {
        "exempt": False,
        "amount": "825.00",
        "basis": "full_value",
        "area_type": "unincorporated",
        "transfer_value": "750000.01",
    }
    warnings = api.post("/v2/deeds", order(transfer_tax=tax)).json()["warnings"]
    assert [warning["code"] for warning in warnings] == ["differs_from_statutory_tax"]
    assert "825.55" in warnings[0]["message"]
    liens = order(order_id="ORD-3", transfer_tax={**tax, "basis": "less_liens"})
    assert api.post("/v2/deeds", liens).json()["warnings"] == []
    exact = order(order_id="ORD-2", transfer_tax={**tax, "transfer_value": "750000.00"})
    assert api.post("/v2/deeds", exact).json()["warnings"] == []


@pytest.mark.parametrize(
    ("deed_type", "tax", "pointers"),
    [
        ("grant", {"transfer_value": "750000.00"}, []),
        ("quitclaim", {"transfer_value": "1"}, ["transfer_value"]),
        ("warranty", {"transfer_value": "1"}, ["transfer_value"]),
        ("interspousal", {"amount": "1", "city_name": "La Verne"}, ["amount", "city_name"]),
    ],
)
def test_so_is_a_part_of_one(order: Orders, deed_type: str, tax: dict[str, Any], pointers: list[str]) -> None:
    given = order(deed_type)
    given["transfer_tax"] |= tax
    warnings = reading.read(given).warnings
    assert [one["pointer"] for one in warnings] == [f"/transfer_tax/{name}" for name in pointers]


def test_a_fact_the_deed_does_not_show_is_a_warning(api: Api, order: Orders) -> None:
    given = order("tax", transfer_tax=order("grant")["transfer_tax"])
    answer = api.post("/v2/deeds", given)
    assert answer.status_code == 202
    assert [warning["pointer"] for warning in answer.json()["warnings"]] == ["/transfer_tax"]


def test_a_key_that_may_only_read_creates_nothing(acme: Partner, order: Orders) -> None:
    answer = Api.of(acme, scopes=["deed:read"]).post("/v2/deeds", order())
    assert answer.status_code == 403
    assert answer.json()["code"] == "insufficient_scope"
    assert answer.json()["required_scope"] == "deed:create"
    assert not Deed.objects.exists()
