"""Whose token opens the back office's API, by the shared secret; and from where."""

import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from prometheus_client import REGISTRY

from keys.models import Partner
from tests.api import Api
from tests.keys.back_office import BASE, SECRET, claims, refused, send, token, unsigned

pytestmark = pytest.mark.usefixtures("shared_secret")


def test_it_works(acme: Partner) -> None:
    answer = send("GET", "/partners")
    assert answer.status_code == 200
    assert [partner["name"] for partner in answer.json()["data"]] == ["Acme Title"]


def _failures(code: str) -> float:
    return REGISTRY.get_sample_value("partner_api_auth_failures_total", {"code": code}) or 0.0


def test_guesses_are_counted_and_limited_by_address(acme: Partner, settings: Any) -> None:
    settings.FAILED_AUTH_PER_MINUTE, settings.FAILED_AUTH_BURST = 1, 2
    before = _failures("invalid_token")
    assert [send("GET", "/partners", text="guess").status_code for _ in range(3)] == [401, 401, 429]
    assert _failures("invalid_token") == before + 3
    assert send("GET", "/partners").status_code == 200, "a good token passes from there too"
    assert send("GET", "/partners", text="guess", REMOTE_ADDR="203.0.113.9").status_code == 401


FAR = 10**6
BAD: dict[str, Callable[[], str]] = {
    "another secret": lambda: jwt.encode(claims(), SECRET + "!", algorithm="HS256"),
    "alg none": lambda: unsigned({"alg": "none", "typ": "JWT"}, claims()),
    "alg None": lambda: unsigned({"alg": "None", "typ": "JWT"}, claims()),
    "no alg": lambda: unsigned({"typ": "JWT"}, claims()),
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
    "an empty subject": lambda: token(sub=""),
    "a blank subject": lambda: token(sub=" "),
    "a subject with a NUL": lambda: token(sub="maria\x00"),
    "a subject of two lines": lambda: token(sub="maria\nroot"),
    "a subject that is half a character": lambda: token(sub="\ud800"),
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
