"""What the back office reads of all partners: pages, filters, the trail, deeds."""

from collections.abc import Callable
from typing import Any

import pytest

from keys.models import Partner
from tests.api import Api, errors_of
from tests.keys.back_office import BASE, send

pytestmark = pytest.mark.usefixtures("shared_secret")


NOBODY = "01900000-0000-7000-8000-000000000000"


def ids(answer: Any) -> list[str]:
    return [row["id"] for row in answer.json()["data"]]


def test_lists_are_filtered_and_paged(api: Api, stranger: Api) -> None:
    send("POST", f"/keys/{stranger.key.pk}/revoke", {"reason": "x"})
    assert ids(send("GET", f"/keys?partner={api.partner.pk}")) == [str(api.key.pk)]
    assert ids(send("GET", "/keys?revoked=true")) == [str(stranger.key.pk)]
    assert ids(send("GET", "/keys?revoked=false")) == [str(api.key.pk)]
    first = send("GET", "/keys?limit=1").json()
    assert [row["id"] for row in first["data"]] == [str(stranger.key.pk)]
    following = send("GET", first["next"].removeprefix("http://testserver" + BASE)).json()
    assert [row["id"] for row in following["data"]] == [str(api.key.pk)]
    assert following["next"] is None
    assert errors_of(send("GET", "/keys?parnter=x")) == {"/parnter": "unknown_parameter"}
    assert errors_of(send("GET", "/keys?revoked=maybe")) == {"/revoked": "invalid_value"}
    assert errors_of(send("GET", "/keys?limit=1&limit=2")) == {"/limit": "repeated"}
    assert errors_of(send("GET", "/keys?cursor=x")) == {"/cursor": "invalid_cursor"}


def test_the_audit_trail_is_read_by_pages(acme: Partner) -> None:
    for number in range(3):
        send("PATCH", f"/partners/{acme.pk}", {"monthly_deed_quota": number})
    page = send("GET", "/audit?limit=2").json()
    assert [entry["after"]["monthly_deed_quota"] for entry in page["data"]] == [2, 1]
    rest = send("GET", page["next"].removeprefix("http://testserver" + BASE)).json()
    assert [entry["after"]["monthly_deed_quota"] for entry in rest["data"]] == [0]
    entry = rest["data"][0]
    assert entry["actor"] == {"kind": "token", "name": "maria"}
    assert entry["target"] == {"kind": "keys.partner", "id": str(acme.pk)}
    assert entry["partner"] == str(acme.pk)
    assert len(send("GET", f"/audit?partner={acme.pk}&actor_kind=token").json()["data"]) == 3
    assert send("GET", "/audit?action=key.revoked").json()["data"] == []
    assert send("GET", "/audit?created_after=2100-01-01T00:00:00Z").json()["data"] == []
    assert errors_of(send("GET", "/audit?actor_kind=nobody")) == {"/actor_kind": "invalid_value"}


def test_deeds_of_all_partners_are_listed(
    api: Api, stranger: Api, order: Callable[..., dict[str, Any]]
) -> None:
    own = api.post("/v2/deeds", order(order_id="A-1")).json()["id"]
    other = stranger.post("/v2/deeds", order(order_id="B-1")).json()["id"]
    rows = send("GET", "/deeds").json()["data"]
    assert [(row["id"], row["partner"]) for row in rows] == [
        (other, str(stranger.partner.pk)),
        (own, str(api.partner.pk)),
    ]
    only = send("GET", f"/deeds?partner={api.partner.pk}&status=queued&order_id=A-1").json()["data"]
    assert [row["id"] for row in only] == [own]
    assert errors_of(send("GET", "/deeds?partner=acme")) == {"/partner": "invalid_value"}
    assert errors_of(send("GET", "/deeds?patrner=x")) == {"/patrner": "unknown_parameter"}


def test_what_is_absent_is_not_found(db: None) -> None:
    for method, path in (
        ("GET", "/partners/"),
        ("PATCH", "/partners/"),
        ("GET", "/keys/"),
        ("PATCH", "/keys/"),
    ):
        answer = send(method, path + NOBODY, {} if method == "PATCH" else None)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert send("POST", f"/keys/{NOBODY}/revoke", {"reason": "x"}).status_code == 404
    assert send("POST", f"/keys/{NOBODY}/rotate", {}).status_code == 404
    assert send("DELETE", "/keys").status_code == 405
