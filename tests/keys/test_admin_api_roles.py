"""Every call of the back office's API names a role; a token has what its role claim says."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from keys import roles
from keys.admin_auth import AdminApiView
from keys.models import AuditEntry, Partner
from keys.permissions import PUBLIC
from tests.keys.back_office import send, token

pytestmark = pytest.mark.usefixtures("shared_secret")


def _routes() -> Iterator[tuple[str, type[AdminApiView]]]:
    for pattern in get_resolver().url_patterns:
        if isinstance(pattern, URLPattern) and str(pattern.pattern).startswith("admin-api/"):
            yield str(pattern.pattern), pattern.callback.view_class  # type: ignore[attr-defined]  # Django's name
        assert not (isinstance(pattern, URLResolver) and str(pattern.pattern).startswith("admin-api"))


ROUTES = dict(_routes())
NOBODY = "01900000-0000-7000-8000-000000000000"


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_names_one_role(route: str) -> None:
    view = ROUTES[route]
    assert issubclass(view, AdminApiView)
    methods = {name.upper() for name in view.http_method_names if hasattr(view, name)} - {"HEAD"}
    assert set(view.roles) == methods
    for role in view.roles.values():
        assert role in roles.ROLES or (role == PUBLIC and route == "admin-api/v1/bootstrap")


@pytest.mark.parametrize(
    ("route", "method"), [(route, method) for route, view in ROUTES.items() for method in view.roles]
)
def test_each_role_gets_its_routes_and_no_other(acme: Partner, route: str, method: str) -> None:
    needed = ROUTES[route].roles[method]
    if needed == PUBLIC:
        return
    path = "/" + route.removeprefix("admin-api/v1/")
    for name in ("partner_id", "key_pk"):
        path = path.replace(f"<uuid:{name}>", NOBODY)
    for role in (*roles.ROLES, "auditor", None):
        answer = send(method, path, {} if method != "GET" else None, text=token(role))
        if role is not None and roles.includes(role, needed):
            assert answer.status_code in {200, 404, 422}, (role, answer.content)
            continue
        assert answer.status_code == 403, (role, answer.content)
        assert (answer.json()["code"], answer.json()["required_role"]) == ("insufficient_role", needed)
    assert Partner.objects.count() == 1
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize(
    ("claim", "status"),
    [
        ("admin", 201),
        (["support", "key_staff"], 201),
        (["support"], 403),
        ("Owner", 403),
        ({"owner": True}, 403),
        ([["owner"]], 403),
        (7, 403),
    ],
)
def test_the_role_claim_is_one_or_a_list(db: None, claim: Any, status: int) -> None:
    answer = send("POST", "/partners", {"name": "New"}, text=token(claim))
    assert answer.status_code == status
    assert Partner.objects.exists() is (status == 201)


def test_the_claim_can_have_another_name(db: None, settings: Any) -> None:
    settings.ADMIN_JWT_ROLE_CLAIM = "partner_api_role"
    assert send("GET", "/partners", text=token("owner")).status_code == 403
    assert send("GET", "/partners", text=token(None, partner_api_role="support")).status_code == 200
