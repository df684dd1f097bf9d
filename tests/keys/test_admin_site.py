"""Staff at the front door: password and code, both, from where it is allowed."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.contrib.sessions.models import Session
from django.contrib.staticfiles import finders
from django.db import connection
from django.test import Client
from django.utils import timezone

from keys.models import AuditEntry, Authenticator, RecoveryCodes
from tests.staff import PASSWORD, code_at, code_of, hire, is_in, log_in, post_login

pytestmark = pytest.mark.usefixtures("quick_passwords")


def test_it_works(owner: Any) -> None:
    client = log_in(owner)
    assert is_in(client)
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.actor, entry.target_id) == ("staff.logged_in", "ada", str(owner.pk))
    assert entry.after == {"second_factor": "authenticator"}
    assert entry.address == "127.0.0.1"


@pytest.mark.parametrize(
    ("password", "token"),
    [(PASSWORD, ""), (PASSWORD, "000000"), (PASSWORD, "12345x"), ("wrong", "{code}"), ("", "{code}")],
    ids=["no code", "wrong code", "no digits", "wrong password", "no password"],
)
def test_password_and_code_are_both_needed(owner: Any, client: Client, password: str, token: str) -> None:
    answer = post_login(client, "ada", token.format(code=code_of(owner)), password)
    assert answer.status_code == 200
    assert not is_in(client)
    assert not Session.objects.exists()


def test_a_wrong_password_and_a_wrong_code_look_the_same(owner: Any, client: Client) -> None:
    said = []
    for password, token in ((PASSWORD, "000000"), ("wrong", code_of(owner)), (PASSWORD, "")):
        page = post_login(client, "ada", token, password).content.decode()
        said.append(re.sub(r'name="csrfmiddlewaretoken" value="\w+"', "", page))
    assert said[0] == said[1] == said[2]
    assert "fit together" in said[0]


def test_a_code_works_once(owner: Any, client: Client) -> None:
    token = code_of(owner)
    assert post_login(Client(), "ada", token).status_code == 302
    assert post_login(client, "ada", token).status_code == 200
    assert not is_in(client)


def test_no_code_works_again_where_the_clock_was_moved_back(owner: Any) -> None:
    device = Authenticator.objects.get(user=owner)
    spare = RecoveryCodes.issue(owner)[0]
    with time_machine.travel("2026-11-24T08:00:00Z", tick=False) as clock:
        step = int(timezone.now().timestamp()) // 30
        assert post_login(Client(), "ada", code_at(device.secret, step)).status_code == 302
        for back in (30, 3600):
            clock.shift(-back)
            for near in (-1, 0, 1):
                seen = code_at(device.secret, int(timezone.now().timestamp()) // 30 + near)
                assert post_login(Client(), "ada", seen).status_code in {200, 429}
        assert post_login(Client(REMOTE_ADDR="203.0.113.9"), "ada", spare).status_code == 302


def test_failures_make_the_next_code_wait(owner: Any, client: Client) -> None:
    with time_machine.travel("2026-11-24T08:00:00Z", tick=False) as clock:
        post_login(client, "ada", "000000")
        post_login(client, "ada", "000001")
        assert post_login(client, "ada", code_of(owner)).status_code == 200
        clock.shift(10)
        assert post_login(client, "ada", code_of(owner)).status_code == 302


@pytest.mark.django_db(transaction=True)
def test_of_two_logins_with_one_code_one_gets_in(quick_passwords: None) -> None:
    hire("ada", "owner")
    user = hire("eve", "owner")
    token = code_of(user)

    def attempt(_: int) -> int:
        try:
            return int(post_login(Client(), "eve", token).status_code)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(attempt, range(4))) == [200, 200, 200, 302]


def test_who_is_not_staff_does_not_get_in(client: Client, django_user_model: Any) -> None:
    django_user_model.objects.create_user("member", password=PASSWORD)
    assert post_login(client, "member").status_code == 200
    assert client.get("/admin/enrol/").status_code == 302
    assert not Authenticator.objects.exists()


@pytest.mark.parametrize(
    ("network", "address", "is_there"),
    [
        ("203.0.113.0/24", "203.0.113.9", True),
        ("203.0.113.0/24", "::ffff:203.0.113.9", True),
        ("::ffff:203.0.113.0/120", "203.0.113.9", True),
        ("203.0.113.0/24", "198.51.100.1", False),
        ("203.0.113.0/24", "2001:db8::1", False),
        ("2001:db8::/32", "2001:db8::1", True),
    ],
)
def test_outside_of_the_allowed_networks_there_is_no_admin(
    client: Client, db: None, settings: Any, network: str, address: str, is_there: bool
) -> None:
    settings.ADMIN_ALLOWED_CIDRS = [network]
    answer = client.get("/admin/login/", REMOTE_ADDR=address)
    if is_there:
        assert answer.status_code == 200
        return
    nothing = client.get("/nothing", REMOTE_ADDR=address, headers={"X-Request-ID": "same"})
    hidden = client.get("/admin/login/", REMOTE_ADDR=address, headers={"X-Request-ID": "same"})
    assert (hidden.status_code, hidden.content) == (nothing.status_code, nothing.content)
    assert set(hidden.headers) == set(nothing.headers)
    assert post_login(client, "ada", REMOTE_ADDR=address).status_code == 404
    assert not AuditEntry.objects.exists()


def test_no_hash_makes_a_page_wider_than_a_telephone(owner: Any) -> None:
    """A deed's page, and an audit entry's, could be read on one only by moving them from side to side."""
    page = log_in(owner).get("/admin/").content.decode()
    style = re.search(r'href="/static/(partner_api/staff\S*\.css)"', page)
    assert style is not None
    found = finders.find(style[1])
    assert found is not None
    assert ".readonly { overflow-wrap: anywhere; }" in Path(found).read_text()


def test_a_form_without_its_token_is_refused(owner: Any) -> None:
    strict = Client(enforce_csrf_checks=True)
    assert post_login(strict, "ada", code_of(owner)).status_code == 403
    assert not is_in(strict)
