"""Every POST that does something honours an `Idempotency-Key`, or stands here with the reason why not.

The URL conf is walked, so a route that is added later is tested too, or fails here for want of a sample.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.db import DatabaseError, connection
from django.test import Client
from django.urls import get_resolver, resolve, reverse
from django_redis import get_redis_connection

from keys import key_cache
from keys.models import ApiKey, AuditEntry, Partner
from partner_api.http.models import KeptAnswer
from partner_api.local.stripe_twin.server import Twin
from tests.api import Api
from tests.billing.books import provisioned
from tests.conftest import MainApi
from tests.http.test_idempotency import v1_order
from tests.keys.back_office import send, token
from tests.test_isolation import Owner, patterns

DOCS = Path(__file__).parent.parent.parent / "docs"
KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"
NOBODY = "01900000-0000-7000-8000-000000000000"
NOT_IDEMPOTENT = {
    "deed-validate": "nothing is stored",
    "inbound-webhook": "X-Webhook-Id, or else the body, is an event's identity, for longer than a day",
    "stripe-webhook": "the id of Stripe's event is its identity",
    "admin-bootstrap": "it works once, for ever: who has the setup secret must not be shown the key again",
}


def routes_with_a_post() -> dict[str, Any]:
    """Name → view of each API route. Pages of staff have no API clients."""
    found = {}
    for route, pattern in patterns(get_resolver()):
        view = getattr(pattern.callback, "view_class", None)
        if hasattr(view, "post") and not route.startswith("admin/"):
            found[str(pattern.name)] = view
    return found


ROUTES = routes_with_a_post()
IDEMPOTENT = sorted(name for name, view in ROUTES.items() if "POST" in getattr(view, "idempotent", ()))


def test_each_post_honours_the_key_or_says_why_not() -> None:
    assert set(ROUTES) == {*IDEMPOTENT, *NOT_IDEMPOTENT}
    assert not set(IDEMPOTENT) & set(NOT_IDEMPOTENT)
    assert len(IDEMPOTENT) > 15, "the walk finds them"


@pytest.mark.parametrize("name", NOT_IDEMPOTENT)
def test_the_exceptions_are_documented(name: str) -> None:
    [route] = [route for route, pattern in patterns(get_resolver()) if pattern.name == name]
    assert f"`POST /{route.replace('<str:system>', '{system}')}`" in (DOCS / "orders.md").read_text()


def test_the_header_is_in_the_document_of_exactly_these(client: Client) -> None:
    paths = client.get("/schema/", headers={"Accept": "application/json"}).json()["paths"]
    documented = {
        resolve(re.sub(r"{\w+}", NOBODY, path)).url_name
        for path, operations in paths.items()
        for parameter in operations.get("post", {}).get("parameters", [])
        if (parameter["in"], parameter["name"]) == ("header", "Idempotency-Key")
    }
    assert documented == {name for name in IDEMPOTENT if not name.startswith("admin-")}


# --- each of them, sent twice -------------------------------------------------------------------

Send = Callable[..., Any]
Orders = Callable[..., dict[str, Any]]


class Sender:
    """Sends one request of a route again and again, as a partner or as the back office."""

    def __init__(self, owner: Owner, name: str) -> None:
        self.owner, self.name = owner, name
        self.parameter, self.body = SAMPLES[name](owner)
        self.path = reverse(name, args=[self.parameter] if self.parameter else [])

    def __call__(self, *, key: str = KEY, body: Any = None) -> Any:
        body = self.body if body is None else body
        if self.name.startswith("admin-"):
            path = self.path.removeprefix("/admin-api/v1")
            return send("POST", path, body, idempotency_key=key)
        return self.owner.api.post(self.path, body, Idempotency_Key=key)


def _new_key(owner: Owner) -> dict[str, Any]:
    return {"partner": str(owner.api.partner.pk), "name": "Sample", "environment": "live"}


# What is variable in a route's path, and a body. Each new route adds its own.
SAMPLES: dict[str, Callable[[Owner], tuple[str, Any]]] = {
    "v1-deed": lambda _: ("quitclaim", v1_order()),
    "deeds": lambda owner: ("", owner.order()),
    "deed-batch": lambda owner: ("", {"orders": [owner.order()]}),
    "deed-cancel": lambda owner: (owner.queued_deed(), None),
    "portal-session": lambda _: ("", None),
    "setup-intent": lambda _: ("", None),
    "keys": lambda _: ("", {"name": "Sample"}),
    "key-rotate": lambda owner: (owner.key(), {"overlap_seconds": 60}),
    "endpoints": lambda _: ("", {"url": "https://93.184.216.34/"}),
    "endpoint-test": lambda owner: (owner.endpoint(), None),
    "endpoint-secret": lambda owner: (owner.endpoint(), None),
    "endpoint-replay": lambda owner: (owner.event() and _endpoint(), {"since": "2026-01-01T00:00:00Z"}),
    "delivery-resend": lambda owner: (owner.delivery(), None),
    "admin-partners": lambda _: ("", {"name": "Sample"}),
    "admin-keys": lambda owner: ("", _new_key(owner)),
    "admin-key-revoke": lambda owner: (owner.key(), {"reason": "leaked"}),
    "admin-key-rotate": lambda owner: (owner.key(), {"reason": "due"}),
}
WITHOUT_A_BODY = {name for name in SAMPLES if "parser_classes" in vars(ROUTES[name])} | {
    "portal-session",
    "setup-intent",
}


def _endpoint() -> str:
    return str(apps.get_model("webhooks.Endpoint").objects.get().pk)


@pytest.fixture
def sender(
    api: Api,
    order: Orders,
    main_api: MainApi,
    twin: Twin,
    shared_secret: None,
    settings: Any,
) -> Callable[[str], Sender]:
    settings.V1_WAIT_SECONDS = 0

    def make(name: str) -> Sender:
        provisioned(api.partner)
        return Sender(Owner(api, order), name)

    return make


def everything() -> dict[str, Any]:
    """All rows that an act could make or change."""
    models = ("keys", "deeds", "webhooks")
    return {
        model._meta.label: sorted(map(repr, model._default_manager.values()))
        for app in models
        for model in apps.get_app_config(app).get_models()
    }


def test_each_has_a_sample() -> None:
    assert set(SAMPLES) == set(IDEMPOTENT)


@pytest.mark.parametrize("name", IDEMPOTENT)
def test_it_is_done_once_and_answered_as_before(sender: Callable[[str], Sender], name: str) -> None:
    request = sender(name)
    first = request()
    assert first.status_code < 300, first.content
    assert "Idempotent-Replayed" not in first
    done = everything()
    again = request()
    assert again["Idempotent-Replayed"] == "true"
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.get("Cache-Control") == first.get("Cache-Control")
    assert everything() == done
    # Otherwise a route that does nothing would pass.
    assert KeptAnswer.objects.count() == 1


@pytest.mark.parametrize("name", sorted(set(IDEMPOTENT) - WITHOUT_A_BODY))
def test_another_body_under_the_same_key_is_a_mismatch(sender: Callable[[str], Sender], name: str) -> None:
    request = sender(name)
    request()
    done = everything()
    answer = request(body={"another": "body"})
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")
    assert everything() == done


@pytest.mark.parametrize("name", [name for name in IDEMPOTENT if name != "deeds" and "admin" not in name])
def test_a_key_of_another_route_is_a_mismatch_and_nothing_is_done(
    sender: Callable[[str], Sender], twin: Twin, name: str
) -> None:
    request = sender(name)
    request.owner.api.post("/v2/deeds", request.owner.order(order_id="ANOTHER"), Idempotency_Key=KEY)
    done, calls = everything(), twin.world.calls.total()
    answer = request()
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")
    assert everything() == done
    assert twin.world.calls.total() == calls, "nothing was asked of Stripe"


# --- secrets, and other services ----------------------------------------------------------------


def test_a_rotated_keys_text_is_kept_encrypted_and_for_the_key_that_asked(api: Api, acme: Partner) -> None:
    """Another key of the partner may have less than the new one."""
    path = f"/v2/keys/{Owner(api, dict).key()}/rotate"
    first = api.post(path, {}, Idempotency_Key=KEY)
    assert first.json()["api_key"] not in KeptAnswer.objects.get().headers_and_body
    another = Api.of(acme, scopes=["key:manage"])
    answer = another.post(path, {}, Idempotency_Key=KEY)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")
    assert api.post(path, {}, Idempotency_Key=KEY).json() == first.json()


def test_an_issued_keys_text_is_for_the_key_that_asked(api: Api, acme: Partner) -> None:
    api.post("/v2/keys", {"name": "Wide"}, Idempotency_Key=KEY)
    answer = Api.of(acme, scopes=["key:manage"]).post("/v2/keys", {"name": "Wide"}, Idempotency_Key=KEY)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")


@pytest.mark.usefixtures("shared_secret")
def test_the_back_offices_keys_are_each_subjects_own(db: None) -> None:
    """A subject may be longer than what the audit trail keeps of it."""
    bodies = {"maria": {"name": "1"}, "jo": {"name": "2"}, "x" * 201: {"name": "3"}, "x" * 202: {"name": "4"}}
    first = {
        subject: send("POST", "/partners", body, token(sub=subject), idempotency_key=KEY)
        for subject, body in bodies.items()
    }
    assert [answer.status_code for answer in first.values()] == [201] * 4
    again = send("POST", "/partners", bodies["jo"], token(sub="jo"), idempotency_key=KEY)
    assert (again.content, again["Idempotent-Replayed"]) == (first["jo"].content, "true")
    less = send("POST", "/partners", bodies["jo"], token("support", sub="jo"), idempotency_key=KEY)
    assert less.status_code == 403
    assert Partner.objects.count() == 4


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("shared_secret")
def test_an_act_on_a_key_holds_at_once_and_no_redis_is_asked_in_its_transaction(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_inside: list[bool] = []

    def connect(alias: str) -> Any:
        asked_inside.append(connection.in_atomic_block)
        return get_redis_connection(alias)

    monkeypatch.setattr(key_cache, "get_redis_connection", connect)
    assert api.get("/v2/deeds").status_code == 200
    answer = send("POST", f"/keys/{api.key.pk}/revoke", {"reason": "leaked"}, idempotency_key=KEY)
    assert answer.status_code == 200
    assert api.get("/v2/deeds").json()["code"] == "api_key_revoked"
    assert asked_inside == [False, False], "before, and after"


@pytest.mark.django_db(transaction=True)
def test_without_its_record_a_key_is_not_rotated(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: Any) -> None:
        raise DatabaseError

    path = f"/v2/keys/{Owner(api, dict).key()}/rotate"
    with monkeypatch.context() as patch:
        patch.setattr(KeptAnswer, "store", breaks)
        assert api.post(path, {}, Idempotency_Key=KEY).status_code == 500
    assert not AuditEntry.objects.filter(action="key.rotated").exists()
    assert ApiKey.objects.count() == 2
    assert api.post(path, {}, Idempotency_Key=KEY).status_code == 201
