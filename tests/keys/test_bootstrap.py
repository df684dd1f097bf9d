"""The first partner and key: with the setup secret, once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from keys.models import ApiKey, AuditEntry, Partner, Setup
from tests.api import Api, errors_of

SECRET = "s" * 40
URL = "/admin-api/v1/bootstrap"


@pytest.fixture(autouse=True)
def setup_secret(settings: Any) -> None:
    settings.SETUP_SECRET = SECRET


def send(secret: str | None = SECRET, **body: Any) -> Any:
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    return Client(raise_request_exception=False).post(
        URL, {"name": "Acme Title", **body}, content_type="application/json", headers=headers
    )


def test_it_works(db: None) -> None:
    answer = send(contact_email="it@acme.example")
    assert answer.status_code == 201
    assert "no-store" in answer["Cache-Control"]
    body = answer.json()
    partner, key = Partner.objects.get(), ApiKey.objects.get()
    assert (body["partner"]["id"], body["partner"]["contact_email"]) == (str(partner.pk), "it@acme.example")
    assert (body["key"]["id"], body["key"]["scopes"]) == (str(key.pk), ["*"])
    assert Api(partner, key, body["api_key"]).get("/v2/deeds").status_code == 200
    assert list(AuditEntry.objects.order_by("id").values_list("action", "actor")) == [
        ("partner.created", "setup secret"),
        ("key.issued", "setup secret"),
    ]


def test_it_refuses_for_ever_after(db: None) -> None:
    send()
    again = send(name="Another")
    assert (again.status_code, again.json()["code"]) == (409, "setup_completed")
    ApiKey.objects.all().delete()
    Setup.objects.update(partner=None)
    assert send(name="Another").status_code == 409
    assert not Partner.objects.filter(name="Another").exists()


def test_a_partner_that_was_made_otherwise_is_the_first_too(acme: Partner) -> None:
    answer = send(name="Another")
    assert (answer.status_code, answer.json()["code"]) == (409, "setup_completed")
    assert Partner.objects.get() == acme
    assert not ApiKey.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_twenty_at_once_one_gets_it() -> None:
    together = threading.Barrier(20)

    def attempt(number: int) -> int:
        try:
            together.wait(timeout=20)
            return int(send(name=f"Partner {number}").status_code)
        finally:
            connection.close()

    with ThreadPoolExecutor(20) as pool:
        assert sorted(pool.map(attempt, range(20))) == [201, *[409] * 19]
    assert (Partner.objects.count(), ApiKey.objects.count(), Setup.objects.count()) == (1, 1, 1)


@pytest.mark.parametrize("secret", ["", "wrong", SECRET[:-1], SECRET + "s", "ключ", None])
def test_another_secret_is_refused(db: None, secret: str | None) -> None:
    for _ in range(2):
        answer = send(secret)
        assert answer.status_code == 401
        assert answer["WWW-Authenticate"].startswith("Bearer")
        assert answer.json()["code"] == ("authentication_required" if secret is None else "invalid_token")
    assert not Partner.objects.exists()


def test_guesses_are_limited_by_address(db: None, settings: Any) -> None:
    settings.FAILED_AUTH_PER_MINUTE, settings.FAILED_AUTH_BURST = 1, 2
    assert [send("guess").status_code for _ in range(3)] == [401, 401, 429]
    assert send().status_code == 201


def test_without_a_setting_there_is_nothing(db: None, settings: Any) -> None:
    settings.SETUP_SECRET = ""
    assert send("").status_code == 404
    assert send(SECRET).status_code == 404
    assert not Partner.objects.exists()


def test_a_body_that_is_refused_uses_nothing_up(db: None) -> None:
    assert errors_of(send(nmae="x")) == {"/nmae": "unknown_field"}
    assert errors_of(send(contact_email="nobody")) == {"/contact_email": "invalid_value"}
    assert not Setup.objects.exists()
    assert send().status_code == 201


def test_outside_of_the_allowed_networks_there_is_nothing(db: None, settings: Any) -> None:
    settings.ADMIN_API_ALLOWED_CIDRS = ["203.0.113.0/24"]
    assert send().status_code == 404
    assert not Partner.objects.exists()
