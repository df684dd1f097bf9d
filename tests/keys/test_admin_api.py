"""The back office's API: whose token passes, with which role, and what it can do."""

import datetime as dt
import json
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from keys import jwks, roles
from keys.admin_auth import PUBLIC, AdminApiView
from keys.models import ApiKey, AuditEntry, Partner
from tests.api import Api, errors_of

SECRET = "a shared secret of more than thirty-two bytes"
BASE = "/admin-api/v1"


@pytest.fixture(autouse=True)
def shared_secret(settings: Any) -> None:
    settings.ADMIN_JWT_SECRET = SECRET
    settings.ADMIN_JWT_AUDIENCE, settings.ADMIN_JWT_ISSUER = "partner-api-admin", "main-api"


def claims(**changes: Any) -> dict[str, Any]:
    """A good token's; a change to None leaves one out."""
    now = int(time.time())
    good = {
        "sub": "maria",
        "role": "owner",
        "aud": "partner-api-admin",
        "iss": "main-api",
        "iat": now,
        "exp": now + 60,
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def token(role: str | None = "owner", **changes: Any) -> str:
    return jwt.encode(claims(role=role, **changes), SECRET, algorithm="HS256")


def send(method: str, path: str, body: Any = None, text: str | None = None, **extra: Any) -> Any:
    return Client(raise_request_exception=False).generic(
        method,
        BASE + path,
        b"" if body is None else json.dumps(body).encode(),
        content_type="application/json",
        headers={"Authorization": f"Bearer {token() if text is None else text}"},
        **extra,
    )


def refused(text: str) -> dict[str, Any]:
    """The 401, which has one shape whatever is wrong."""
    answer = send("GET", "/partners", text=text)
    assert answer.status_code == 401, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    assert answer["WWW-Authenticate"].startswith("Bearer")
    body: dict[str, Any] = answer.json()
    assert body["code"] == "invalid_token"
    del body["request_id"]
    return body


# --- tokens ------------------------------------------------------------------------------------


def test_it_works(acme: Partner) -> None:
    answer = send("GET", "/partners")
    assert answer.status_code == 200
    assert [partner["name"] for partner in answer.json()["data"]] == ["Acme Title"]


def _unsigned(header: dict[str, str], body: dict[str, Any]) -> str:
    parts = (urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, body))
    return ".".join((*parts, ""))


FAR = 10**6
BAD: dict[str, Callable[[], str]] = {
    "another secret": lambda: jwt.encode(claims(), SECRET + "!", algorithm="HS256"),
    "alg none": lambda: _unsigned({"alg": "none", "typ": "JWT"}, claims()),
    "alg None": lambda: _unsigned({"alg": "None", "typ": "JWT"}, claims()),
    "no alg": lambda: _unsigned({"typ": "JWT"}, claims()),
    "HS512": lambda: jwt.encode(claims(), SECRET * 2, algorithm="HS512"),
    "HS384 with the secret": lambda: jwt.encode(claims(), SECRET + " " * 8, algorithm="HS384"),
    "another audience": lambda: token(aud="partner-api"),
    "no audience": lambda: token(aud=None),
    "another issuer": lambda: token(iss="evil"),
    "no issuer": lambda: token(iss=None),
    "expired": lambda: token(exp=int(time.time()) - 31),
    "no expiry": lambda: token(exp=None),
    "expiry as text": lambda: token(exp="tomorrow"),
    "expiry beyond time": lambda: token(exp=float("inf")),
    "not yet valid": lambda: token(nbf=int(time.time()) + 60),
    "issued in the future": lambda: token(iat=int(time.time()) + FAR),
    "no subject": lambda: token(sub=None),
    "cut": lambda: token()[:-2],
    "changed": lambda: ".".join(
        (token().split(".")[0], token("owner", sub="x").split(".")[1], token().split(".")[2])
    ),
    "no token": lambda: "token",
    "empty": lambda: "",
    "a partner's key": lambda: "dp_live_0000000000000000_" + "0" * 49,
    "cyrillic": lambda: "токен",
    "7 kB": lambda: "x" * 7000,
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD.keys())
def test_a_bad_token_is_refused_in_one_shape(db: None, make: Callable[[], str]) -> None:
    assert refused(make()) == refused("another")


def test_no_token_is_asked_for(client: Client, db: None) -> None:
    answer = client.get(f"{BASE}/partners")
    assert (answer.status_code, answer.json()["code"]) == (401, "authentication_required")


@pytest.mark.parametrize("changes", [{"exp": -29}, {"nbf": 29}, {"iat": 29}])
def test_clocks_may_differ_a_little(db: None, changes: dict[str, int]) -> None:
    shifted: dict[str, Any] = {name: int(time.time()) + seconds for name, seconds in changes.items()}
    assert send("GET", "/partners", text=token(**shifted)).status_code == 200


def test_a_list_of_audiences_that_has_ours_is_fine(db: None) -> None:
    assert send("GET", "/partners", text=token(aud=["other", "partner-api-admin"])).status_code == 200


def test_a_partners_key_opens_nothing(api: Api) -> None:
    assert refused(api.text)["code"] == "invalid_token"


def test_an_admin_token_opens_nothing_of_a_partners(client: Client, db: None) -> None:
    answer = client.get("/v2/deeds", headers={"Authorization": f"Bearer {token()}"})
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_api_key")


def test_without_a_setting_there_is_nothing(db: None, settings: Any) -> None:
    settings.ADMIN_JWT_SECRET = ""
    assert send("GET", "/partners").status_code == 404
    assert send("POST", "/partners", {"name": "New"}, text="").status_code == 404


def test_both_modes_at_once_are_refused(db: None, settings: Any) -> None:
    settings.ADMIN_JWKS_URL = "https://id.example/jwks"
    with pytest.raises(ImproperlyConfigured, match="one of them"):
        Client().get(f"{BASE}/partners", headers={"Authorization": f"Bearer {token()}"})


@pytest.mark.parametrize(
    ("address", "status"), [("203.0.113.9", 200), ("::ffff:203.0.113.9", 200), ("::1", 404)]
)
def test_outside_of_the_allowed_networks_there_is_nothing(
    db: None, settings: Any, address: str, status: int
) -> None:
    settings.ADMIN_API_ALLOWED_CIDRS = ["203.0.113.0/24"]
    assert send("GET", "/partners", REMOTE_ADDR=address).status_code == status


# --- tokens signed with a published key ---------------------------------------------------------


class Publisher:
    """An identity provider on a port of its own, that publishes `keys`."""

    def __init__(self) -> None:
        self.keys: dict[str, rsa.RSAPrivateKey] = {}
        self.asked = 0
        self.status = "200 OK"
        self.redirect_to = ""

    def add(self, key_id: str) -> None:
        self.keys[key_id] = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def sign(self, key_id: str, named: str | None = None, **changes: Any) -> str:
        headers = {"kid": named or key_id}
        return jwt.encode(claims(**changes), self.keys[key_id], algorithm="RS256", headers=headers)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        self.asked += 1
        moved = [("Location", self.redirect_to)] if self.redirect_to and environ["PATH_INFO"] == "/" else []
        start_response("302 Found" if moved else self.status, [("Content-Type", "application/json"), *moved])
        keys = [
            {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key())), "kid": key_id, "use": "sig"}
            for key_id, key in self.keys.items()
        ]
        return [json.dumps({"keys": [{"kty": "EC", "kid": "other"}, *keys]}).encode()]


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def publisher(settings: Any) -> Iterator[Publisher]:
    app = Publisher()
    app.add("one")
    with make_server("127.0.0.1", 0, app, handler_class=_Quiet) as server:
        settings.ADMIN_JWT_SECRET = ""
        settings.ADMIN_JWKS_URL = f"http://127.0.0.1:{server.server_port}/"
        settings.ADMIN_JWKS_COOLDOWN_SECONDS = 0.0
        jwks.forget()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield app
        finally:
            server.shutdown()
            thread.join()
            jwks.forget()


def test_a_published_key_signs(publisher: Publisher, acme: Partner) -> None:
    for _ in range(3):
        assert send("GET", "/partners", text=publisher.sign("one")).status_code == 200
    assert publisher.asked == 1


def test_a_new_key_is_fetched_and_an_old_one_is_not_good_any_more(publisher: Publisher, db: None) -> None:
    old = publisher.sign("one")
    assert send("GET", "/partners", text=old).status_code == 200
    publisher.add("two")
    del publisher.keys["one"]
    assert send("GET", "/partners", text=publisher.sign("two")).status_code == 200
    assert publisher.asked == 2
    refused(old)


def test_made_up_key_ids_do_not_make_us_ask_each_time(publisher: Publisher, db: None, settings: Any) -> None:
    settings.ADMIN_JWKS_COOLDOWN_SECONDS = 60.0
    for number in range(5):
        refused(publisher.sign("one", named=f"made up {number}"))
    assert publisher.asked == 1
    assert send("GET", "/partners", text=publisher.sign("one")).status_code == 200


def test_a_publisher_that_is_away_does_not_end_known_keys(
    publisher: Publisher, db: None, settings: Any
) -> None:
    assert send("GET", "/partners", text=publisher.sign("one")).status_code == 200
    publisher.status = "500 Broken"
    settings.ADMIN_JWKS_CACHE_SECONDS = 0.0
    assert send("GET", "/partners", text=publisher.sign("one")).status_code == 200
    assert publisher.asked == 2
    settings.ADMIN_JWKS_STALE_SECONDS = 0.0
    answer = send("GET", "/partners", text=publisher.sign("one"))
    assert (answer.status_code, answer.json()["code"]) == (503, "identity_provider_unavailable")
    assert int(answer["Retry-After"]) > 0


def test_a_redirect_is_not_followed(publisher: Publisher, db: None, settings: Any) -> None:
    publisher.redirect_to = settings.ADMIN_JWKS_URL + "elsewhere"
    assert send("GET", "/partners", text=publisher.sign("one")).status_code == 503
    assert publisher.asked == 1


def test_a_secret_made_of_the_public_key_signs_nothing(publisher: Publisher, db: None) -> None:
    pem = (
        publisher.keys["one"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    header, body = {"alg": "HS256", "typ": "JWT", "kid": "one"}, claims()
    signed = _unsigned(header, body)[:-1]
    forged = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(signed.encode(), pem)
    refused(f"{signed}.{urlsafe_b64encode(forged).rstrip(b'=').decode()}")


def test_with_published_keys_the_rest_is_refused_too(publisher: Publisher, db: None) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    refused(jwt.encode(claims(), other, algorithm="RS256", headers={"kid": "one"}))
    refused(jwt.encode(claims(), other, algorithm="RS256"))
    refused(jwt.encode(claims(), SECRET, algorithm="HS256", headers={"kid": "one"}))
    refused(_unsigned({"alg": "none", "kid": "one"}, claims()))
    refused(publisher.sign("one", aud="other"))
    refused(publisher.sign("one", exp=int(time.time()) - 31))
    refused(jwt.encode(claims(), publisher.keys["one"], algorithm="RS512", headers={"kid": "one"}))


# --- roles -------------------------------------------------------------------------------------


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


# --- partners, keys, the audit trail ------------------------------------------------------------


def test_a_partner_is_made_read_and_changed(db: None) -> None:
    sent = {
        "name": "Acme Title",
        "contact_email": "it@acme.example",
        "monthly_deed_quota": 100,
        "monthly_request_quota": None,
        "budget_cap": "500.50",
    }
    made = send("POST", "/partners", sent)
    assert made.status_code == 201
    body = made.json()
    assert {name: body[name] for name in sent} == sent
    assert body["status"] == "active"
    path = f"/partners/{body['id']}"
    assert send("GET", path).json() == body
    changed = send("PATCH", path, {"budget_cap": None, "monthly_deed_quota": 0})
    assert changed.status_code == 200
    assert changed.json() == {**body, "budget_cap": None, "monthly_deed_quota": 0}
    assert send("GET", path).json() == changed.json()
    entries = AuditEntry.objects.order_by("id")
    assert [(entry.action, entry.actor_kind, entry.actor) for entry in entries] == [
        ("partner.created", "token", "maria"),
        ("partner.changed", "token", "maria"),
    ]
    assert entries[1].before == {"budget_cap": "500.50", "monthly_deed_quota": 100}


def test_a_suspension_needs_a_reason_and_holds_at_once(api: Api) -> None:
    path = f"/partners/{api.partner.pk}"
    assert errors_of(send("PATCH", path, {"status": "suspended"})) == {"/reason": "required"}
    assert api.get("/v2/deeds").status_code == 200
    assert send("PATCH", path, {"status": "suspended", "reason": "unpaid"}).json()["status"] == "suspended"
    assert api.get("/v2/deeds").json()["code"] == "partner_suspended"
    assert AuditEntry.objects.get(action="partner.suspended").reason == "unpaid"
    assert send("PATCH", path, {"status": "active"}).status_code == 200
    assert api.get("/v2/deeds").status_code == 200


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, {"/name": "required"}),
        ({"name": " "}, {"/name": "invalid_value"}),
        ({"name": "Acme Title"}, {"/name": "invalid_value"}),
        ({"name": 7}, {"/name": "invalid_value"}),
        ({"name": "a\nb"}, {"/name": "invalid_value"}),
        ({"name": "x" * 201}, {"/name": "invalid_value"}),
        ({"name": "New", "nmae": "x"}, {"/nmae": "unknown_field"}),
        ({"name": "New", "contact_email": "nobody"}, {"/contact_email": "invalid_value"}),
        ({"name": "New", "monthly_deed_quota": -1}, {"/monthly_deed_quota": "invalid_value"}),
        ({"name": "New", "monthly_deed_quota": "5"}, {"/monthly_deed_quota": "invalid_value"}),
        ({"name": "New", "monthly_deed_quota": 2**40}, {"/monthly_deed_quota": "invalid_value"}),
        ({"name": "New", "monthly_deed_quota": True}, {"/monthly_deed_quota": "invalid_value"}),
        ({"name": "New", "budget_cap": 500.5}, {"/budget_cap": "invalid_value"}),
        ({"name": "New", "budget_cap": "500.505"}, {"/budget_cap": "invalid_value"}),
        ({"name": "New", "budget_cap": "-1"}, {"/budget_cap": "invalid_value"}),
        ({"name": "New", "budget_cap": "NaN"}, {"/budget_cap": "invalid_value"}),
        ({"name": "New", "status": "gone"}, {"/status": "invalid_value"}),
        ([], {"": "invalid_type"}),
    ],
)
def test_a_wrong_partner_is_refused_by_field(acme: Partner, body: Any, errors: dict[str, str]) -> None:
    assert errors_of(send("POST", "/partners", body)) == errors
    assert Partner.objects.count() == 1
    assert not AuditEntry.objects.exists()


def test_an_unknown_field_is_suggested(db: None) -> None:
    message = send("POST", "/partners", {"name": "x", "budget_cpa": "1"}).json()["errors"][0]["message"]
    assert "did you mean 'budget_cap'?" in message


def test_a_key_is_issued_changed_rotated_and_revoked(acme: Partner) -> None:
    ends = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    sent = {
        "partner": str(acme.pk),
        "name": "SoftPro",
        "environment": "live",
        "scopes": ["deed:read"],
        "rate_limit_per_minute": 60,
        "rate_limit_burst": 10,
        "allowed_cidrs": ["127.0.0.0/8"],
        "expires_at": "2030-01-01T00:00:00Z",
    }
    made = send("POST", "/keys", sent)
    assert made.status_code == 201
    assert "no-store" in made["Cache-Control"]
    body = made.json()
    assert {name: body[name] for name in sent} == sent
    text = body.pop("api_key")
    key = ApiKey.objects.get()
    assert key.expires_at == ends
    assert Api(acme, key, text).get("/v2/deeds").status_code == 200

    path = f"/keys/{key.pk}"
    assert send("GET", path).json() == body | {
        name: send("GET", path).json()[name] for name in ("last_used_at", "last_used_address")
    }
    changed = send("PATCH", path, {"scopes": ["deed:create"], "expires_at": None})
    assert (changed.json()["scopes"], changed.json()["expires_at"]) == (["deed:create"], None)
    assert changed.json()["rate_limit_per_minute"] == 60
    assert Api(acme, key, text).get("/v2/deeds").json()["code"] == "insufficient_scope"

    rotated = send("POST", f"{path}/rotate", {"overlap_seconds": 3600})
    assert rotated.status_code == 201
    assert "no-store" in rotated["Cache-Control"]
    new = rotated.json()
    assert new["replaces"]["id"] == str(key.pk)
    assert new["replaces"]["replaced_by"] == new["id"]
    assert errors_of(send("POST", f"{path}/rotate", {})) == {"": "invalid_value"}

    assert errors_of(send("POST", f"/keys/{new['id']}/revoke", {})) == {"/reason": "required"}
    revoked = send("POST", f"/keys/{new['id']}/revoke", {"reason": "leaked"})
    assert (revoked.status_code, revoked.json()["revoked_reason"]) == (200, "leaked")
    assert send("POST", f"/keys/{new['id']}/revoke", {"reason": "again"}).json()["revoked_reason"] == "leaked"

    actions = [entry.action for entry in AuditEntry.objects.order_by("id")]
    assert actions == ["key.issued", "key.changed", "key.rotated", "key.revoked"]
    elsewhere = send("GET", "/keys").content + send("GET", "/audit").content + send("GET", path).content
    for secret in (text, new["api_key"]):
        assert secret.rpartition("_")[2].encode() not in elsewhere
        assert secret.rpartition("_")[2] not in repr(list(AuditEntry.objects.values()))


def test_a_key_has_no_scope_unless_given(acme: Partner) -> None:
    body = {"partner": str(acme.pk), "name": "Bare", "environment": "test"}
    assert send("POST", "/keys", body).json()["scopes"] == []


@pytest.mark.parametrize(
    ("changes", "errors"),
    [
        ({"partner": NOBODY}, {"/partner": "unknown_partner"}),
        ({"partner": "acme"}, {"/partner": "invalid_value"}),
        ({"environment": "prod"}, {"/environment": "invalid_value"}),
        ({"scopes": ["deed:raed"]}, {"/scopes": "invalid_value"}),
        ({"scopes": "deed:read"}, {"/scopes": "invalid_value"}),
        ({"allowed_cidrs": ["10.0.0.1/8"]}, {"/allowed_cidrs": "invalid_value"}),
        ({"rate_limit_per_minute": 0}, {"/rate_limit_per_minute": "invalid_value"}),
        ({"rate_limit_burst": 1.5}, {"/rate_limit_burst": "invalid_value"}),
        ({"expires_at": "tomorrow"}, {"/expires_at": "invalid_value"}),
        ({"expires_at": "2030-01-01T00:00:00"}, {"/expires_at": "invalid_value"}),
        ({"secret_sha256": "0"}, {"/secret_sha256": "unknown_field"}),
    ],
)
def test_a_wrong_key_is_refused_by_field(
    acme: Partner, changes: dict[str, Any], errors: dict[str, str]
) -> None:
    body = {"partner": str(acme.pk), "name": "x", "environment": "live", **changes}
    assert errors_of(send("POST", "/keys", body)) == errors
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/keys/{key}", {"environment": "test"}),
        ("PATCH", "/keys/{key}", {"partner": NOBODY}),
        ("POST", "/keys/{key}/rotate", {"overlap_seconds": 604_801}),
        ("POST", "/keys/{key}/rotate", {"overlap_seconds": -1}),
        ("POST", "/keys/{key}/rotate", {"overlap_seconds": "60"}),
        ("POST", "/keys/{key}/revoke", {"reason": " "}),
    ],
)
def test_a_wrong_act_changes_nothing(api: Api, method: str, path: str, body: Any) -> None:
    before = list(ApiKey.objects.values())
    assert send(method, path.format(key=api.key.pk), body).status_code == 422
    assert list(ApiKey.objects.values()) == before
    assert not AuditEntry.objects.exists()


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
