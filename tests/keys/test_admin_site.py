"""Staff at the front door: password and code, enrolment, lockout, the end of a session."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import time_machine
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client

from keys import tasks
from keys.models import AuditEntry, Authenticator, RecoveryCodes
from tests.staff import PASSWORD, code_at, code_of, hire, log_in, post_login

pytestmark = pytest.mark.usefixtures("quick_passwords")
INSIDE = "/admin/jsi18n/"  # the cheapest page behind the login


@pytest.fixture
def owner(db: None) -> Any:
    return hire("ada", "owner")


def is_in(client: Client) -> bool:
    return bool(client.get(INSIDE).status_code == 200)


def actions() -> list[str]:
    return list(AuditEntry.objects.order_by("id").values_list("action", flat=True))


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


def test_who_is_not_staff_does_not_get_in(client: Client, django_user_model: Any) -> None:
    django_user_model.objects.create_user("member", password=PASSWORD)
    assert post_login(client, "member").status_code == 200
    assert client.get("/admin/enrol/").status_code == 302
    assert not Authenticator.objects.exists()


def test_five_failures_lock_out_one_name_from_one_address(owner: Any) -> None:
    other = hire("bob", "owner")
    for _ in range(5):
        last = post_login(Client(), "ada", "", "wrong")
    assert last.status_code == 429
    assert "Locked out" in last.content.decode()
    answer = post_login(Client(), "ada", code_of(owner))
    assert answer.status_code == 429
    assert log_in(other)
    elsewhere = Client(REMOTE_ADDR="203.0.113.9")
    assert log_in(owner, elsewhere)
    assert actions().count("staff.locked_out") == 1
    assert actions().count("staff.login_failed") == 4
    assert "wrong" not in repr(list(AuditEntry.objects.values()))


def test_many_names_from_one_address_are_limited_together(owner: Any, settings: Any) -> None:
    settings.STAFF_LOGINS_PER_MINUTE, settings.STAFF_LOGINS_BURST = 1, 6
    answers = [post_login(Client(), f"name{number}").status_code for number in range(6)]
    assert answers == [200] * 6
    failures = actions().count("staff.login_failed")
    refused = post_login(Client(), "ada", code_of(owner))
    assert refused.status_code == 429
    assert 0 < int(refused["Retry-After"]) <= 60
    assert "sessionid" not in refused.cookies
    assert actions().count("staff.login_failed") == failures, "what is not looked at fills no trail"
    assert Client().get("/admin/login/").status_code == 200
    assert log_in(owner, Client(REMOTE_ADDR="203.0.113.9"))


def test_ended_sessions_are_deleted_and_open_ones_kept(owner: Any) -> None:
    with time_machine.travel("2026-11-24T08:00:00Z", tick=False) as clock:
        log_in(owner, Client())
        clock.shift(7 * 3600)
        here = log_in(owner, Client())
        clock.shift(2 * 3600)
        assert Session.objects.count() == 2
        tasks.forget_ended_sessions()
        assert [one.session_key for one in Session.objects.all()] == [here.session.session_key]


def test_a_lockout_ends(owner: Any, client: Client) -> None:
    with time_machine.travel("2026-11-24T08:00:00Z", tick=False) as clock:
        for _ in range(5):
            post_login(client, "ada", "", "wrong")
        clock.shift(890)
        assert post_login(client, "ada", code_of(owner)).status_code == 429
        clock.shift(20)
        assert post_login(client, "ada", code_of(owner)).status_code == 302


def test_wrong_codes_lock_out_too(owner: Any, client: Client) -> None:
    answers = [post_login(client, "ada", f"00000{number}").status_code for number in range(5)]
    assert answers == [200, 200, 200, 200, 429]


def test_a_claimed_address_does_not_evade_the_lockout(owner: Any, settings: Any) -> None:
    settings.TRUSTED_PROXY_HOPS = 1
    for number in range(5):
        claimed = Client(headers={"X-Forwarded-For": f"198.51.100.{number}, 203.0.113.9"})
        last = post_login(claimed, "ada", "", "wrong")
    assert last.status_code == 429
    assert AuditEntry.objects.filter(address="203.0.113.9").count() == 5


def test_an_unknown_name_is_not_kept(client: Client, db: None) -> None:
    post_login(client, "my password, typed into the wrong field", "", "x")
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.actor, entry.target_id) == ("staff.login_failed", "(unknown)", "")
    assert "my password" not in repr(AuditEntry.objects.values().get())


def test_made_up_names_do_not_fill_the_trail(
    client: Client, db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keys.staff.events.UNKNOWN_AN_HOUR", 3)
    for number in range(5):
        post_login(client, f"made up {number}", "", "x")
    assert AuditEntry.objects.count() == 3
    post_login(Client(REMOTE_ADDR="203.0.113.9"), "made up", "", "x")
    assert AuditEntry.objects.count() == 4


def test_an_idle_session_ends(owner: Any) -> None:
    with time_machine.travel("2026-11-24T08:00:00Z", tick=False) as clock:
        client = log_in(owner)
        for _ in range(4):
            clock.shift(1700)
            assert is_in(client)
        clock.shift(1801)
        assert not is_in(client)
        clock.shift(-1000)
        assert not is_in(client)


def test_a_busy_session_ends_too(owner: Any) -> None:
    with time_machine.travel("2026-11-24T08:00:00Z", tick=False) as clock:
        client = log_in(owner)
        for _ in range(17):
            clock.shift(1690)
            assert is_in(client)
        clock.shift(300)
        assert not is_in(client)


def test_the_session_cookie_is_for_the_browser_only(owner: Any, settings: Any) -> None:
    settings.SESSION_COOKIE_SECURE = True
    cookie = log_in(owner).cookies["sessionid"]
    assert (cookie["httponly"], cookie["secure"], cookie["samesite"], cookie["max-age"]) == (
        True,
        True,
        "Lax",
        "",
    )


def test_a_login_changes_the_session(owner: Any, client: Client) -> None:
    session = client.session
    session["planted"] = True
    session.save()
    planted = client.session.session_key
    log_in(owner, client)
    assert client.session.session_key != planted


def test_a_new_password_ends_all_other_sessions(owner: Any) -> None:
    here, elsewhere = log_in(owner), log_in(owner)
    new = "another long password, quite"
    form = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
    assert here.post("/admin/password_change/", form).status_code == 302
    assert is_in(here)
    assert not is_in(elsewhere)
    assert actions()[-1] == "staff.password_changed"


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


def test_a_form_without_its_token_is_refused(owner: Any) -> None:
    strict = Client(enforce_csrf_checks=True)
    assert post_login(strict, "ada", code_of(owner)).status_code == 403
    assert not is_in(strict)
