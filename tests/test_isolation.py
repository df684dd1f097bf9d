"""What belongs to another partner or mode looks as if it were not there: on every route with an id.

The URL conf is walked, so a route that is added later is tested too, or fails here for want of a maker.
"""

import datetime as dt
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, URLResolver, get_resolver, path, reverse
from django.utils import timezone

from billing.models import BillingPeriod, Invoice
from deeds import storage, tasks
from deeds.models import Deed
from keys.models import ApiKey, Partner
from keys.permissions import PUBLIC
from partner_api.http import signed_links
from tests.api import Api
from tests.conftest import MainApi
from webhooks.models import Delivery, Endpoint, Event

Orders = Callable[..., dict[str, Any]]
Maker = Callable[["Owner"], str]

# Pages and calls of our own staff, who see all partners.
OF_STAFF = ("admin/", "admin-api/")
# Routes whose variable part is no id of a partner's object, with what it is.
NO_OBJECT = {
    ("v1-deed", "POST"): "a deed type",
    ("deed-type", "GET"): "a deed type",
    ("inbound-webhook", "POST"): "a system that sends orders",
}


@dataclass
class Owner:
    """Who has what the others must not see, and how to make more of it."""

    api: Api
    order: Orders

    def queued_deed(self) -> str:
        return str(self.api.post("/v2/deeds", self.order()).json()["id"])

    def completed_deed(self) -> str:
        deed_id = self.queued_deed()
        tasks.serve(deed_id)
        return deed_id

    def key(self) -> str:
        return str(self.api.post("/v2/keys", {"name": "Isolated"}).json()["id"])

    def invoice(self) -> str:
        start = timezone.now() - dt.timedelta(days=40)
        period = BillingPeriod.objects.create(
            partner=self.api.partner, starts_at=start, ends_at=start + dt.timedelta(days=30)
        )
        return str(Invoice.objects.create(partner=self.api.partner, period=period, currency="USD").pk)

    def endpoint(self) -> str:
        """At an address that nobody can be found under, so that nothing is sent."""
        endpoint = Endpoint(
            partner=self.api.partner, livemode=True, url="https://hooks.invalid/", event_types=["*"]
        )
        endpoint.give_secret(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", now=timezone.now(), overlap=dt.timedelta()
        )
        endpoint.save()
        return str(endpoint.pk)

    def event(self) -> str:
        self.endpoint()
        self.completed_deed()
        return str(Event.objects.get().pk)

    def delivery(self) -> str:
        self.event()
        return str(Delivery.objects.get().pk)


# How to make an object for a route and method; its id as text. Each new route with an id adds its own.
MAKERS: dict[tuple[str, str], Maker] = {
    ("v1-deed", "GET"): Owner.completed_deed,
    ("deed", "GET"): Owner.completed_deed,
    ("deed-pdf", "GET"): Owner.completed_deed,
    ("deed-cancel", "POST"): Owner.queued_deed,
    ("pdf-file", "GET"): Owner.completed_deed,
    ("key", "GET"): Owner.key,
    ("key", "PATCH"): Owner.key,
    ("key", "DELETE"): Owner.key,
    ("key-rotate", "POST"): Owner.key,
    ("invoice", "GET"): Owner.invoice,
    ("endpoint", "GET"): Owner.endpoint,
    ("endpoint", "PATCH"): Owner.endpoint,
    ("endpoint", "DELETE"): Owner.endpoint,
    ("endpoint-test", "POST"): Owner.endpoint,
    ("endpoint-secret", "POST"): Owner.endpoint,
    ("endpoint-replay", "POST"): Owner.endpoint,
    ("event", "GET"): Owner.event,
    ("delivery", "GET"): Owner.delivery,
    ("delivery-resend", "POST"): Owner.delivery,
}


def patterns(resolver: URLResolver, before: str = "") -> Iterator[tuple[str, URLPattern]]:
    for one in resolver.url_patterns:
        route = before + str(one.pattern)
        if isinstance(one, URLResolver):
            yield from patterns(one, route)
        else:
            yield route, one


def scopes_of(pattern: URLPattern) -> dict[str, str]:
    """By method. Staff's pages have none."""
    scopes: dict[str, str] = getattr(getattr(pattern.callback, "view_class", None), "scopes", {})
    return scopes


def routes_with_an_id(found: Iterator[tuple[str, URLPattern]]) -> list[tuple[str, str]]:
    """(name, method) of each API route with something variable in its path."""
    return [
        (str(pattern.name), method)
        for route, pattern in found
        if pattern.pattern.converters and not route.startswith(OF_STAFF)
        for method in scopes_of(pattern)
        if (pattern.name, method) not in NO_OBJECT
    ]


ROUTES = routes_with_an_id(patterns(get_resolver()))


@pytest.fixture
def owner(api: Api, order: Orders, main_api: MainApi) -> Owner:
    return Owner(api, order)


def parameter_of(name: str) -> str:
    (possibility,) = [
        next(iter(pattern.pattern.converters))
        for _, pattern in patterns(get_resolver())
        if pattern.name == name
    ]
    return str(possibility)


def address(name: str, object_id: str) -> str:
    value: Any = object_id
    parameter = parameter_of(name)
    if parameter != "deed":
        value = uuid.UUID(object_id)
    return reverse(name, kwargs={parameter: value})


def send(who: Api, method: str, where: str) -> Any:
    body = {"since": "2026-01-01T00:00:00Z"} if where.endswith("/replay") else {}
    return who.send(method, where, body if method in {"POST", "PATCH"} else None)


def seen_by(who: Api, name: str, method: str, object_id: str) -> dict[str, Any]:
    """All of an answer that a caller could learn from, and how much work it was."""
    where = address(name, object_id)
    if name == "pdf-file":
        # The signature of another link of the caller's own.
        other = signed_links.sign(address(name, str(uuid.uuid4())), expires_at=2**33)
        where = f"{where}?{other.partition('?')[2]}"
    who.get("/v2/deed-types")  # a key that is met for the first time is read
    with CaptureQueriesContext(connection) as queries:
        answer = send(who, method, where)
    body = answer.json()
    body.pop("request_id")
    return {
        "status": answer.status_code,
        "body": body,
        "headers": {
            name: value
            for name, value in answer.headers.items()
            # What differs between any two requests.
            if name not in {"X-Request-ID", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit"}
        },
        "queries": [query["sql"].partition(" WHERE ")[0] for query in queries],
    }


@pytest.mark.parametrize(("name", "method"), ROUTES, ids=str)
def test_what_is_not_ones_own_looks_absent(
    nothing_is_due: None, owner: Owner, stranger: Api, acme: Partner, name: str, method: str
) -> None:
    make = MAKERS.get((name, method))
    assert make is not None, f"{method} of {name} takes an id: add how to make its object to MAKERS"
    object_id, absent_id = make(owner), str(uuid.uuid4())
    before = [
        Deed.objects.values_list("pk", "status", "timeline").order_by("pk"),
        ApiKey.objects.exclude(name="Test").values_list("pk", "revoked_at", "expires_at").order_by("pk"),
    ]
    rows = [list(one) for one in before]
    absent = seen_by(owner.api, name, method, absent_id)
    assert absent["status"] == 404
    for who in (stranger, Api.of(acme, environment="test")):
        foreign = seen_by(who, name, method, object_id)
        assert foreign == seen_by(who, name, method, absent_id)
        # Test mode may know without looking that it has none; what is seen is the same.
        assert {**foreign, "queries": absent["queries"]} == absent
    assert [list(one.all()) for one in before] == rows, "nothing was changed"
    # Otherwise a route that answers 404 to everyone would pass.
    where = address(name, object_id)
    if name == "pdf-file":
        where = storage.link_to(Deed.objects.get(), now=timezone.now()).url.removeprefix("http://testserver")
    assert send(owner.api, method, where).status_code in {200, 201, 202, 204, 302}


def test_a_route_without_a_maker_is_noticed() -> None:
    class View:
        scopes = {"GET": "deed:read", "DELETE": "deed:cancel"}

    def view() -> None:
        pass

    view.view_class = View  # type: ignore[attr-defined]  # as Django's as_view does
    new = [
        ("v2/things/<uuid:thing>", path("v2/things/<uuid:thing>", view, name="thing")),  # type: ignore[arg-type]  # never called
        ("v2/things", path("v2/things", view, name="things")),  # type: ignore[arg-type]  # never called
    ]
    assert routes_with_an_id(iter(new)) == [("thing", "GET"), ("thing", "DELETE")]
    assert set(ROUTES) == set(MAKERS)
    assert set(NO_OBJECT) <= {
        (str(pattern.name), method)
        for _, pattern in patterns(get_resolver())
        for method in scopes_of(pattern)
    }


def test_only_links_are_public_among_them() -> None:
    public = {
        pattern.name
        for route, pattern in patterns(get_resolver())
        if pattern.pattern.converters and not route.startswith(OF_STAFF)
        if PUBLIC in scopes_of(pattern).values()
    }
    assert public == {"pdf-file", "inbound-webhook"}
