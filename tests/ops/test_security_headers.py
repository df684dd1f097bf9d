"""What browsers are told, on data, on our pages, and in the admin."""

import re
from typing import Any

import pytest
from django.test import Client

from partner_api.http.security_headers import ADMIN, DATA, PAGE, REDOC
from tests.api import Api

PAGES = ("/docs/", "/docs/redoc/", "/docs/errors")


def test_data_may_do_nothing(api: Api) -> None:
    answer = api.get("/v2/deed-types")
    assert answer["Content-Security-Policy"] == DATA
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["Cross-Origin-Resource-Policy"] == "same-origin"
    assert answer["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize("path", PAGES)
def test_our_pages_need_no_inline_code(client: Client, db: None, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer["Content-Security-Policy"] == (REDOC if "redoc" in path else PAGE)
    assert "unsafe" not in PAGE
    # Styles that Redoc writes while it runs, and nothing else.
    assert REDOC.count("unsafe") == REDOC.count("style-src 'self' 'unsafe-inline'") == 1
    html = answer.content.decode()
    assert not re.search(r"<style|<script(?![^>]*\bsrc=)[^>]*>|\bstyle=|\bon\w+=", html)
    # All that the page loads is ours, and is there.
    for source in re.findall(r'(?:src|href)="([^"]+)"', html):
        assert source.startswith(("/", "http://testserver/")), source
        found = client.get(source.removeprefix("http://testserver"))
        assert found.status_code == 200, source
        found.close()


def test_the_script_of_the_docs_is_served_apart(client: Client) -> None:
    html = client.get("/docs/").content.decode()
    source = re.findall(r'<script src="([^"]+)"', html)[-1]
    answer = client.get(source.removeprefix("http://testserver"))
    assert "javascript" in answer["Content-Type"]
    assert "SwaggerUIBundle" in answer.content.decode()


def test_the_admin_has_a_policy_of_its_own(client: Client, db: None) -> None:
    assert client.get("/admin/login/")["Content-Security-Policy"] == ADMIN


def test_an_error_has_them_too(client: Client, db: None) -> None:
    assert client.get("/nothing")["Content-Security-Policy"] == DATA


def test_a_secure_address_is_insisted_on(client: Client, settings: Any) -> None:
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_HSTS_SECONDS = 31_536_000
    assert client.get("/v2/deeds").status_code == 301
    assert "max-age=31536000" in client.get("/healthz", secure=True)["Strict-Transport-Security"]
    # Probes and Prometheus come over the inner network.
    assert client.get("/healthz").status_code == 200
    assert client.get("/metrics").status_code == 404
