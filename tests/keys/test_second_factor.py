"""Enrolment of an authenticator, and the recovery codes for when it is lost."""

import re
import time
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client

from keys.models import AuditEntry, Authenticator, RecoveryCodes
from tests.staff import INSIDE, actions, code_at, code_of, hire, is_in, post_login

pytestmark = pytest.mark.usefixtures("quick_passwords")


def secret_on(page: Any) -> str:
    text = page.content.decode()
    secret = re.search(r'id="totp-secret"[^>]*>([A-Z2-7 ]+)<', text)
    assert secret is not None
    assert "<svg" in text
    return secret[1].replace(" ", "")


def enrol(client: Client, name: str) -> list[str]:
    """Goes the way of the first login; the recovery codes."""
    assert post_login(client, name).status_code == 302
    token = code_at(secret_on(client.get("/admin/enrol/")), int(time.time()) // 30)
    shown = client.post("/admin/enrol/", {"token": token})
    assert shown.status_code == 200, shown.status_code
    codes = re.findall(r"[A-Z2-9]{4}-[A-Z2-9]{4}-[A-Z2-9]{4}", shown.content.decode())
    assert "no-store" in shown["Cache-Control"]
    return codes


def test_without_a_second_factor_there_is_only_enrolment(client: Client, db: None) -> None:
    hire("new", "owner", enrolled=False)
    assert post_login(client, "new").status_code == 302
    for path in (
        INSIDE,
        "/admin/",
        "/admin/keys/apikey/add/",
        "/admin/password_change/",
        "/admin/recovery-codes/",
    ):
        answer = client.get(path)
        assert answer.status_code == 302, path
        assert answer["Location"].startswith("/admin/login/"), path
        assert client.get(answer["Location"])["Location"] == "/admin/enrol/"
    assert client.get("/admin/enrol/").status_code == 200


def test_enrolment_lets_in_and_shows_recovery_codes_once(client: Client, db: None) -> None:
    user = hire("new", "owner", enrolled=False)
    before = post_login(client, "new") and client.session.session_key
    codes = enrol(client, "new")
    assert len(set(codes)) == 10
    assert is_in(client)
    assert client.session.session_key != before
    device = Authenticator.objects.get(user=user)
    assert device.confirmed
    kept = repr([s.get_decoded() for s in Session.objects.all()]) + repr(list(AuditEntry.objects.values()))
    kept += repr(RecoveryCodes.objects.values().get()) + client.get("/admin/").content.decode()
    assert not [code for code in codes if code in kept]
    assert device.secret not in kept
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM staff_authenticators")
        assert device.secret not in cursor.fetchone()[0]
    assert "staff.second_factor_enrolled" in actions()


def test_a_wrong_code_enrols_nobody(client: Client, db: None) -> None:
    hire("new", "owner", enrolled=False)
    post_login(client, "new")
    client.get("/admin/enrol/")
    assert "not the code of now" in client.post("/admin/enrol/", {"token": "000000"}).content.decode()
    assert not Authenticator.objects.get().confirmed
    assert not is_in(client)


def test_who_opened_the_page_before_does_not_share_the_secret(db: None) -> None:
    user = hire("new", "owner", enrolled=False)
    thief, rightful = Client(), Client()
    post_login(thief, "new")
    post_login(rightful, "new")
    step = int(time.time()) // 30
    seen = secret_on(thief.get("/admin/enrol/"))
    own = secret_on(rightful.get("/admin/enrol/"))
    assert seen != own
    answer = thief.post("/admin/enrol/", {"token": code_at(seen, step)})
    assert "made anew in another window" in answer.content.decode()
    assert own != secret_on(answer)
    refused = rightful.post("/admin/enrol/", {"token": code_at(own, step)})
    assert "made anew in another window" in refused.content.decode()
    mine = secret_on(refused)
    rightful.post("/admin/enrol/", {"token": code_at(mine, step)})
    device = Authenticator.objects.get(user=user)
    assert (device.confirmed, device.secret) == (True, mine)
    assert is_in(rightful)
    assert thief.post("/admin/enrol/", {"token": code_at(seen, step)}).status_code == 302
    assert not is_in(thief)


def test_a_session_from_before_an_enrolment_can_not_enrol_again(db: None) -> None:
    user = hire("new", "owner", enrolled=False)
    early, rightful = Client(), Client()
    post_login(early, "new")
    enrol(rightful, "new")
    secret = Authenticator.objects.get(user=user).secret
    for method in (early.get, early.post):
        answer = method("/admin/enrol/", {"token": "000000"})
        assert answer.status_code == 302
        assert secret not in answer.content.decode()
    assert not is_in(early)
    assert Authenticator.objects.get(user=user).secret == secret


def test_a_recovery_code_lets_in_once(client: Client, db: None) -> None:
    hire("new", "owner", enrolled=False)
    code = enrol(client, "new")[0]
    first, second = Client(), Client()
    assert post_login(first, "new", code.lower()).status_code == 302
    assert is_in(first)
    assert post_login(second, "new", code).status_code == 200
    entry = AuditEntry.objects.filter(action="staff.logged_in").latest("id")
    assert entry.after == {"second_factor": "recovery code", "recovery_codes_left": 9}


def test_a_recovery_code_makes_no_new_ones_and_stays_good(client: Client, db: None) -> None:
    hire("new", "owner", enrolled=False)
    code = enrol(client, "new")[0]
    refused = client.post("/admin/recovery-codes/", {"token": code})
    assert "not the code" in refused.content.decode()
    assert post_login(Client(), "new", code).status_code == 302


def test_new_recovery_codes_take_the_place_of_all(client: Client, db: None) -> None:
    user = hire("new", "owner", enrolled=False)
    old = enrol(client, "new")[0]
    refused = client.post("/admin/recovery-codes/", {"token": "000000"})
    assert "not the code" in refused.content.decode()
    Authenticator.objects.update(throttling_failure_timestamp=None)
    shown = client.post("/admin/recovery-codes/", {"token": code_of(user)}).content.decode()
    new = re.findall(r"[A-Z2-9]{4}-[A-Z2-9]{4}-[A-Z2-9]{4}", shown)
    assert len(new) == 10
    assert post_login(Client(), "new", old).status_code == 200
    RecoveryCodes.objects.update(throttling_failure_timestamp=None)
    assert post_login(Client(), "new", new[3]).status_code == 302
