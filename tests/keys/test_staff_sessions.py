"""A session of staff: how it is kept, and when it ends."""

from typing import Any

import pytest
import time_machine
from django.contrib.sessions.models import Session
from django.test import Client

from keys import tasks
from tests.staff import PASSWORD, actions, is_in, log_in

pytestmark = pytest.mark.usefixtures("quick_passwords")


def test_ended_sessions_are_deleted_and_open_ones_kept(owner: Any) -> None:
    with time_machine.travel("2026-11-24T08:00:00Z", tick=False) as clock:
        log_in(owner, Client())
        clock.shift(7 * 3600)
        here = log_in(owner, Client())
        clock.shift(2 * 3600)
        assert Session.objects.count() == 2
        tasks.forget_ended_sessions()
        assert [one.session_key for one in Session.objects.all()] == [here.session.session_key]


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


def test_a_session_from_a_future_that_was_set_right_ends(owner: Any) -> None:
    with time_machine.travel("2026-11-24T08:00:00Z", tick=False) as clock:
        client = log_in(owner)
        clock.shift(-50)
        assert is_in(client)
        clock.shift(-50)
        assert not is_in(client)
        clock.shift(100)
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
