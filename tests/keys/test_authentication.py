"""Who gets in: the key's form, its secret, its validity, its scopes."""

import datetime as dt
import json
import re
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone
from django_redis import get_redis_connection

from keys import audit, lifecycle
from keys.models import ApiKey, Partner
from keys.permissions import PUBLIC
from keys.scopes import SCOPES, covers, why_not_grantable
from keys.secret import KeyText
from tests.api import Api

ONE_SHAPE = {"type", "title", "status", "detail", "code", "request_id"}


def refused(client: Client, **headers: str) -> str:
    """The code of a 401, which has one shape whatever is wrong."""
    answer = client.get("/v2/deeds", headers={name.replace("_", "-"): v for name, v in headers.items()})
    assert answer.status_code == 401, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    assert answer["WWW-Authenticate"].startswith("Bearer")
    assert set(answer.json()) == ONE_SHAPE
    return str(answer.json()["code"])


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
def test_both_headers_work(api: Api, client: Client, header: str) -> None:
    value = api.text if header == "X-API-Key" else f"bearer  {api.text}"
    assert client.get("/v2/deeds", headers={header: value}).status_code == 200


def test_the_same_key_in_both_headers_is_fine(api: Api, client: Client) -> None:
    headers = {"Authorization": f"Bearer {api.text}", "X-API-Key": api.text}
    assert client.get("/v2/deeds", headers=headers).status_code == 200


def test_two_keys_at_once_are_refused(api: Api, stranger: Api, client: Client) -> None:
    assert refused(client, Authorization=f"Bearer {api.text}", X_API_Key=stranger.text) == "invalid_api_key"


def test_no_key_is_asked_for(client: Client, db: None) -> None:
    assert refused(client) == "authentication_required"


def test_a_key_in_the_query_is_no_key(api: Api, client: Client) -> None:
    answer = client.get(f"/v2/deeds?api_key={api.text}")
    assert answer.status_code == 401
    assert api.text not in answer.content.decode()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-1],
        lambda text: text + "0",
        lambda text: text[:-1] + ("0" if text[-1] != "0" else "1"),
        lambda text: text.replace("dp_live", "dp_test"),
        lambda text: text.replace("dp_live", "dp_prod"),
        lambda text: text.swapcase(),
        lambda text: "ключ",
        lambda text: "x" * 7000,
        lambda text: "",
    ],
    ids=["cut", "longer", "checksum", "mode", "environment", "case", "cyrillic", "7 kB", "empty"],
)
def test_a_spoilt_key_is_invalid(api: Api, client: Client, spoil: Any) -> None:
    assert refused(client, Authorization=f"Bearer {spoil(api.text)}") == "invalid_api_key"


def test_a_spoilt_key_costs_no_query(api: Api, client: Client, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        refused(client, Authorization=f"Bearer {api.text[:-1]}{'y' if api.text[-1] == 'x' else 'x'}")


def test_the_id_of_one_key_with_the_secret_of_another_is_invalid(
    api: Api, stranger: Api, client: Client
) -> None:
    own, other = KeyText.parse(api.text), KeyText.parse(stranger.text)
    assert own is not None
    assert other is not None
    mixed = KeyText("live", own.id, other.secret).text
    assert refused(client, Authorization=f"Bearer {mixed}") == "invalid_api_key"


def test_another_scheme_is_invalid(api: Api, client: Client) -> None:
    assert refused(client, Authorization=f"Basic {api.text}") == "invalid_api_key"


def test_a_revoked_key_is_refused_on_the_next_request(api: Api, client: Client) -> None:
    assert api.get("/v2/deeds").status_code == 200
    assert lifecycle.revoke(audit.Actor.command("test"), api.key, reason="leaked") is True
    assert refused(client, Authorization=f"Bearer {api.text}") == "api_key_revoked"


def test_the_first_reason_of_a_revocation_stays(api: Api) -> None:
    lifecycle.revoke(audit.Actor.command("test"), api.key, reason="leaked")
    assert lifecycle.revoke(audit.Actor.command("test"), api.key, reason="again") is False
    assert api.key.revoked_reason == "leaked"


def test_an_expired_key_is_refused(api: Api, client: Client) -> None:
    ApiKey.objects.update(expires_at=timezone.now() - dt.timedelta(seconds=1))
    assert refused(client, Authorization=f"Bearer {api.text}") == "api_key_expired"


def test_a_suspended_partner_is_refused(api: Api, client: Client) -> None:
    Partner.objects.update(status="suspended")
    assert refused(client, Authorization=f"Bearer {api.text}") == "partner_suspended"


def test_why_a_key_is_refused_is_told_to_its_holder_only(api: Api, stranger: Api, client: Client) -> None:
    lifecycle.revoke(audit.Actor.command("test"), api.key, reason="leaked")
    own, other = KeyText.parse(api.text), KeyText.parse(stranger.text)
    assert own is not None
    assert other is not None
    guessed = KeyText("live", own.id, other.secret).text
    assert refused(client, Authorization=f"Bearer {guessed}") == "invalid_api_key"


def test_the_secret_is_kept_nowhere(api: Api) -> None:
    parts = KeyText.parse(api.text)
    assert parts is not None
    row = ApiKey.objects.values().get()
    assert parts.secret not in repr(row)
    assert parts.secret not in repr(parts)
    assert row["secret_sha256"] == parts.digest


def test_a_key_has_no_scope_unless_given(acme: Partner) -> None:
    key, text = ApiKey.issue(acme, name="Bare", environment="live")
    assert key.scopes == []
    assert Api(acme, key, text).get("/v2/deeds").json()["code"] == "insufficient_scope"


@pytest.mark.parametrize(
    ("granted", "needed", "expected"),
    [
        (["deed:read"], "deed:read", True),
        (["deed:read"], "deed:create", False),
        (["deed:*"], "deed:create", True),
        (["deed:*"], "billing:read", False),
        (["*"], "key:manage", True),
        ([], "deed:read", False),
    ],
)
def test_wildcards_cover(granted: list[str], needed: str, expected: bool) -> None:
    assert covers(granted, needed) is expected


def test_a_misspelt_scope_is_refused_with_the_nearest(acme: Partner) -> None:
    assert "'deed:read'" in str(why_not_grantable("deeds:read"))
    with pytest.raises(Exception, match="deed:read"):
        ApiKey.issue(acme, name="Typo", environment="live", scopes=["deeds:read"])


def _routes(patterns: list[Any], prefix: str = "") -> Any:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from _routes(pattern.url_patterns, prefix + str(pattern.pattern))
        elif isinstance(pattern, URLPattern):
            yield prefix + str(pattern.pattern), pattern.callback


ROUTES = [
    (route, view)
    for route, view in _routes(get_resolver().url_patterns)
    if not route.startswith(("admin/", "admin-api/"))
]
PUBLIC_ROUTES = {
    "files/deeds/<uuid:deed_id>.pdf",
    "schema/",
    "docs/",
    "docs/redoc/",
    "docs/errors",
    "healthz",
    "readyz",
    "webhooks/stripe",  # by Stripe's signature
    "v1/webhooks/<str:system>",  # by the source's signature
    "metrics",  # by a token or a network of its own; 404 to others
}


@pytest.mark.parametrize(("route", "view"), ROUTES, ids=[route for route, _ in ROUTES])
def test_every_route_names_one_scope(route: str, view: Any) -> None:
    methods = {name.upper() for name in view.view_class.http_method_names if hasattr(view.view_class, name)}
    methods -= {"HEAD"}
    assert set(view.view_class.scopes) == methods
    for scope in view.view_class.scopes.values():
        assert scope in SCOPES or (scope == PUBLIC and route in PUBLIC_ROUTES)


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        (method, "/" + re.sub(r"<uuid:\w+>", "01900000-0000-7000-8000-000000000000", route), scope)
        for route, view in ROUTES
        if route not in PUBLIC_ROUTES
        for method, scope in view.view_class.scopes.items()
    ],
)
def test_a_key_without_the_scope_is_refused_by_name(
    acme: Partner, method: str, path: str, scope: str
) -> None:
    path = path.replace("<str:deed_type>", "grant").replace("<str:deed>", "grant")
    api = Api.of(acme, scopes=[other for other in SCOPES if other != scope])
    answer = api.send(method, path, None if method == "GET" else {})
    assert answer.status_code == 403
    assert answer.json()["required_scope"] == scope


@pytest.mark.parametrize(
    ("cidrs", "address", "allowed"),
    [
        (["203.0.113.0/24"], "203.0.113.7", True),
        (["203.0.113.0/24"], "::ffff:203.0.113.7", True),
        (["::ffff:203.0.113.0/120"], "203.0.113.7", True),
        (["203.0.113.0/24"], "203.0.114.7", False),
        (["203.0.113.0/24"], "::ffff:203.0.114.7", False),
        (["203.0.113.0/24"], "2001:db8::1", False),
        (["203.0.113.0/24", "2001:db8::/32"], "2001:db8::1", True),
        (["203.0.113.0/24"], "", False),
    ],
)
def test_a_key_is_good_from_its_networks_only(
    acme: Partner, client: Client, cidrs: list[str], address: str, allowed: bool
) -> None:
    _, text = ApiKey.issue(acme, name="x", environment="live", scopes=["deed:read"], allowed_cidrs=cidrs)
    answer = client.get("/v2/deeds", headers={"X-API-Key": text}, REMOTE_ADDR=address)
    assert answer.status_code == (200 if allowed else 401)
    if not allowed:
        assert answer.json()["code"] == "ip_not_allowed"


@pytest.mark.parametrize(
    ("hops", "forwarded", "seen"),
    [
        (0, "203.0.113.7", "127.0.0.1"),
        (1, "203.0.113.7", "203.0.113.7"),
        (1, "203.0.113.7, 198.51.100.1", "198.51.100.1"),
        (2, "203.0.113.7, 198.51.100.1", "203.0.113.7"),
        (2, "198.51.100.1", "127.0.0.1"),
        (1, "", None),
        (1, "nonsense", None),
    ],
)
def test_the_address_is_what_our_own_proxies_saw(
    api: Api, settings: Any, hops: int, forwarded: str, seen: str | None
) -> None:
    settings.TRUSTED_PROXY_HOPS = hops
    api.get("/v2/deeds", X_Forwarded_For=forwarded)
    api.key.refresh_from_db()
    assert api.key.last_used_address == seen


def test_the_log_says_whose_key_was_refused(
    api: Api, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    lifecycle.revoke(audit.Actor.command("test"), api.key, reason="leaked")
    caplog.set_level("INFO", logger="partner_api.ops.access_log")
    assert api.get("/v2/deeds").status_code == 401
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    (line,) = (line for line in lines if line["event"] == "request")
    assert (line["code"], line["key"], line["partner"]) == (
        "api_key_revoked",
        api.key.prefix,
        str(api.partner.pk),
    )


@pytest.mark.parametrize("name", ["api_key", "cursor"])
def test_a_key_in_the_address_is_refused_whatever_its_name(api: Api, client: Client, name: str) -> None:
    for headers in ({}, {"X-API-Key": api.text}):
        answer = client.get(f"/v2/deeds?{name}={api.text}", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_api_key")
        assert api.text not in answer.content.decode()


def test_nor_is_it_accepted_when_it_is_escaped(api: Api, client: Client) -> None:
    """Whoever reads the log of a proxy has it all the same."""
    escaped = api.text.replace("_", "%5F")
    answer = client.get(f"/v2/deeds?api_key={escaped}", headers={"X-API-Key": api.text})
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_api_key")
    assert "have it revoked" in answer.json()["detail"]


def test_a_key_that_is_not_valid_yet_is_told_so(acme: Partner, client: Client, time_machine: Any) -> None:
    begins = timezone.now() + dt.timedelta(hours=1)
    _, text = ApiKey.issue(acme, name="x", environment="live", scopes=["deed:read"], not_before=begins)
    answer = client.get("/v2/deeds", headers={"X-API-Key": text})
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_api_key")
    assert "not valid yet" in answer.json()["detail"]
    time_machine.move_to(begins)
    assert client.get("/v2/deeds", headers={"X-API-Key": text}).status_code == 200


@pytest.mark.parametrize("path", ["/v2/nothing", "/v2/deeds/not-an-id", "/v1/nothing/at/all", "/v2/deeds/"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS"])
def test_an_address_that_leads_nowhere_knows_the_key(api: Api, method: str, path: str) -> None:
    ApiKey.objects.update(rate_limit_per_minute=1, rate_limit_burst=2)
    answers = [api.send(method, path, {} if method == "POST" else None, Accept="text/html") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [404, 404, 429]
    assert {answer["X-RateLimit-Limit"] for answer in answers} == {"1"}
    assert answers[0].json()["code"] == "not_found"


def test_an_address_that_leads_nowhere_refuses_a_key_that_is_none(client: Client) -> None:
    answer = client.get("/v2/nothing", headers={"Authorization": "Bearer dp_live_x_y"})
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize("path", ["/v2/nothing", "/nothing", "/admin-api/v1/nothing"])
def test_addresses_that_lead_nowhere_can_not_be_tried_without_end(
    client: Client, settings: Any, path: str
) -> None:
    settings.PUBLIC_RATE_LIMIT_PER_MINUTE = settings.PUBLIC_RATE_LIMIT_BURST = 3
    codes = [client.get(path, REMOTE_ADDR="192.0.2.77").status_code for _ in range(5)]
    assert codes == [404] * 3 + [429] * 2


def test_keys_that_are_none_leave_nothing_in_redis(client: Client, db: None) -> None:
    redis = get_redis_connection("default")
    before = set(redis.keys("partner_api:key:*"))
    for _ in range(5):
        text = KeyText.generate("live").text
        assert client.get("/v2/deeds", headers={"X-API-Key": text}).status_code == 401
    assert set(redis.keys("partner_api:key:*")) == before
