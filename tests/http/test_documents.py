"""The OpenAPI document and its readers, as everybody gets them without a key."""

import time
from typing import Any

import pytest
from django.test import Client

PATHS = ("/schema/", "/docs/", "/docs/redoc/", "/docs/errors")


@pytest.mark.parametrize("path", PATHS)
def test_a_document_is_limited_by_address_and_says_so_as_a_problem(
    client: Client, db: None, settings: Any, path: str
) -> None:
    settings.PUBLIC_RATE_LIMIT_PER_MINUTE, settings.PUBLIC_RATE_LIMIT_BURST = 1, 2
    *_, refused = [client.get(path, headers={"Accept": "text/html,*/*;q=0.8"}) for _ in range(3)]
    assert (refused.status_code, refused["Content-Type"]) == (429, "application/problem+json")
    assert refused.json()["code"] == "rate_limited"
    assert 0 < int(refused["Retry-After"]) <= 60
    assert client.get(path, REMOTE_ADDR="203.0.113.9").status_code == 200


def test_the_openapi_document_is_made_once(client: Client, db: None) -> None:
    """Made for each request it would take a third of a second of a process' time, for anybody."""
    first = client.get("/schema/", headers={"Accept": "application/json"})
    begun = time.monotonic()
    assert all(
        client.get("/schema/", headers={"Accept": "application/json"}).content == first.content
        for _ in range(50)
    )
    assert time.monotonic() - begun < 5
    assert first.json()["info"]["title"] == "Partner API"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("application/json", "application/json"),
        ("application/vnd.oai.openapi+json", "application/vnd.oai.openapi+json"),
        ("*/*", "application/vnd.oai.openapi; charset=utf-8"),
    ],
)
def test_it_has_the_form_that_was_asked_for(client: Client, db: None, accept: str, form: str) -> None:
    answer = client.get("/schema/", headers={"Accept": accept})
    assert (answer.status_code, answer["Content-Type"]) == (200, form)
    assert b"/v2/deeds" in answer.content


@pytest.mark.parametrize("query", ["version=%0d%0aX-Mine:1", "version=2", "lang=%00"])
def test_what_is_added_to_its_address_changes_nothing(client: Client, db: None, query: str) -> None:
    plain = client.get("/schema/")
    answer = client.get(f"/schema/?{query}")
    assert (answer.status_code, answer.content) == (200, plain.content)
    assert answer["Content-Disposition"] == plain["Content-Disposition"]
