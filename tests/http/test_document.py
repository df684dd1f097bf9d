"""What answers carry stands in the OpenAPI document: a client is made from it, or written by it."""

import json
from collections.abc import Callable
from io import StringIO
from typing import Any, Final

import pytest
from django.core.management import call_command
from django.test import Client

from deeds.models import Deed
from keys.models import ApiKey, Partner
from tests.api import Api
from tests.conftest import MainApi
from tests.deeds.kept import Orders, run
from tests.http.test_idempotency import v1_order

# Of every answer of the server, whatever it serves.
GENERAL: Final = {
    "Allow",
    "Cache-Control",
    "Content-Length",
    "Content-Security-Policy",
    "Content-Type",
    "Cross-Origin-Opener-Policy",
    "Cross-Origin-Resource-Policy",
    "Permissions-Policy",
    "Referrer-Policy",
    "Vary",
    "X-Content-Type-Options",
    "X-Frame-Options",
}
RATE_LIMIT: Final = {
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "RateLimit-Policy",
    "RateLimit",
}

Described = Callable[[str, Any], dict[str, Any]]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    out = StringIO()
    call_command("spectacular", "--format", "openapi-json", stdout=out)
    made: dict[str, Any] = json.loads(out.getvalue())
    return made


@pytest.fixture
def described(document: dict[str, Any]) -> Described:
    """Looks an answer up by the template of its path; all of its headers and members must be there."""

    def look(path: str, answer: Any) -> dict[str, Any]:
        operation = document["paths"][path][answer.wsgi_request.method.lower()]
        response: dict[str, Any] = operation["responses"][str(answer.status_code)]
        # At a refusal the description of the whole document has them.
        general = GENERAL | (RATE_LIMIT if answer.status_code >= 400 and answer.status_code != 429 else set())
        assert set(answer.headers) - general - set(response["headers"]) == set()
        if answer["Content-Type"] == "application/problem+json":
            known = set(document["components"]["schemas"]["ProblemAnswer"]["properties"])
            assert set(answer.json()) - known == set()
        return response

    return look


def test_an_order_and_its_repetitions(api: Api, order: Orders, described: Described, acme: Partner) -> None:
    Partner.objects.filter(pk=acme.pk).update(monthly_deed_quota=100)
    made = api.post("/v2/deeds", order(), prefer="wait=0")
    assert made["Preference-Applied"] == "wait=0"
    assert set(made.headers) > RATE_LIMIT | {"Location", "X-Quota-Limit"}
    described("/v2/deeds", made)
    again = api.post("/v2/deeds", order())
    assert again["Idempotent-Replayed"] == "true"
    described("/v2/deeds", again)
    for _ in range(2):
        with_key = api.post("/v2/deeds", order(order_id="K-1"), Idempotency_Key="k")
    assert (with_key.status_code, with_key["Idempotent-Replayed"]) == (202, "true")
    described("/v2/deeds", with_key)
    batch = api.post("/v2/deeds/batch", {"orders": [order(order_id="B-1")]})
    assert batch["X-Quota-Limit"] == "100"
    described("/v2/deeds/batch", batch)
    described("/v2/deeds/{deed_id}", api.get(f"/v2/deeds/{made.json()['id']}"))


def test_orders_that_are_refused(api: Api, order: Orders, described: Described, acme: Partner) -> None:
    api.post("/v2/deeds", order())
    conflict = api.post("/v2/deeds", order(execution_date="2026-11-20"))
    assert "deed" in conflict.json()
    described("/v2/deeds", conflict)
    reader = Api.of(acme, scopes=["deed:read"]).post("/v2/deeds", order())
    assert "required_scope" in reader.json()
    described("/v2/deeds", reader)
    Partner.objects.filter(pk=acme.pk).update(monthly_deed_quota=1)
    exceeded = api.post("/v2/deeds", order(order_id="O-2"))
    assert (exceeded.status_code, "resets_at" in exceeded.json()) == (402, True)
    described("/v2/deeds", exceeded)


def test_too_many_requests(acme: Partner, described: Described) -> None:
    _, text = ApiKey.issue(
        acme, name="Slow", environment="live", scopes=["*"], rate_limit_per_minute=1, rate_limit_burst=1
    )
    client = Client(headers={"Authorization": f"Bearer {text}"})
    client.get("/v2/deeds")
    refused = client.get("/v2/deeds")
    assert (refused.status_code, "Retry-After" in refused.headers) == (429, True)
    described("/v2/deeds", refused)


def test_a_key_that_was_rotated_and_its_successor(api: Api, described: Described) -> None:
    made = api.post("/v2/keys", {"name": "Mine", "scopes": ["deed:read"]})
    described("/v2/keys", made)
    rotated = api.post(f"/v2/keys/{made.json()['id']}/rotate")
    assert "Location" in rotated.headers
    described("/v2/keys/{key_id}/rotate", rotated)
    old = Client(headers={"X-API-Key": made.json()["api_key"]}).get("/v2/deeds")
    assert {"Deprecation", "Sunset"} <= set(old.headers)
    described("/v2/deeds", old)


def test_a_pdf_and_the_first_version(
    api: Api, order: Orders, described: Described, main_api: MainApi, settings: Any
) -> None:
    deed = Deed.objects.get(pk=api.post("/v2/deeds", order(order_id="P-1")).json()["id"])
    run(deed)
    link = api.get(f"/v2/deeds/{deed.pk}/pdf")
    described("/v2/deeds/{deed_id}/pdf", link)
    file = Client().get(link["Location"].removeprefix("http://testserver"))
    assert file.status_code == 200
    described("/files/deeds/{deed_id}.pdf", file)
    settings.V1_WAIT_SECONDS = 0
    waits = api.post("/v1/deeds/quitclaim", v1_order())
    assert waits.status_code == 202
    described("/v1/deeds/{deed}", waits)


def test_the_product_stands_before_its_first_version(document: dict[str, Any]) -> None:
    groups = [tag["name"] for tag in document["tags"]]
    used = {tag for path in document["paths"].values() for one in path.values() for tag in one["tags"]}
    assert used <= set(groups)
    assert groups[0] == "Deeds"
    assert groups.index("First version") > groups.index("Webhooks")
