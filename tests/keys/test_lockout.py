"""How many wrong guesses a name and an address have, and what they leave behind."""

from typing import Any

import pytest
import time_machine
from axes.models import AccessAttempt
from django.test import Client

from keys.models import AuditEntry
from tests.staff import actions, code_of, hire, log_in, post_login

pytestmark = pytest.mark.usefixtures("quick_passwords")


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


def test_another_address_of_the_same_ipv6_network_is_no_way_around_it(owner: Any) -> None:
    for number in range(5):
        last = post_login(Client(REMOTE_ADDR=f"2001:db8:1:2::{number:x}"), "ada", "", "wrong")
    assert last.status_code == 429
    assert post_login(Client(REMOTE_ADDR="2001:db8:1:2::9"), "ada", code_of(owner)).status_code == 429
    addresses = set(AuditEntry.objects.values_list("address", flat=True))
    assert "2001:db8:1:2::3" in addresses, "the trail has the address itself"
    assert log_in(owner, Client(REMOTE_ADDR="2001:db8:1:3::9"))


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
    kept = (AuditEntry.objects.values().get(), AccessAttempt.objects.values().get())
    assert "my password" not in repr(kept)


@pytest.mark.parametrize("address", ["198.51.100.7", "2001:db8:1:2::{}"])
def test_made_up_names_do_not_fill_the_trail(db: None, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr("keys.staff.events.UNKNOWN_AN_HOUR", 3)
    for number in range(5):
        post_login(Client(REMOTE_ADDR=address.format(number)), f"made up {number}", "", "x")
    assert AuditEntry.objects.count() == 3
    post_login(Client(REMOTE_ADDR="203.0.113.9"), "made up", "", "x")
    assert AuditEntry.objects.count() == 4


def test_nor_do_lockouts_of_made_up_names(
    client: Client, db: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.AXES_FAILURE_LIMIT = 1
    monkeypatch.setattr("keys.staff.events.UNKNOWN_AN_HOUR", 3)
    for number in range(5):
        assert post_login(client, f"made up {number}", "", "x").status_code == 429
    assert actions() == ["staff.locked_out"] * 3
