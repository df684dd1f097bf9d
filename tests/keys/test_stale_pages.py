"""A page of staff's that was opened before a partner, a key or a person was changed undoes nothing."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client

from keys import audit, lifecycle, roles
from keys.admin.staff import StaffAdmin
from keys.models import ApiKey, AuditEntry, Authenticator, Partner
from tests.api import Api
from tests.staff import STALE, hire, is_in, log_in, seen

COMMAND = audit.Actor.command("test")
PASSWORDS = {"password1": "a long enough password", "password2": "a long enough password"}


@pytest.fixture
def owner(db: None, quick_passwords: None) -> Client:
    return log_in(hire("owner", "owner"))


def _post(staff: Client, address: str, **form: Any) -> str:
    """The page that is shown in the end."""
    answer = staff.post(address, form, follow=True)
    assert answer.status_code == 200
    return str(answer.content.decode())


def _traces() -> tuple[int, int]:
    return AuditEntry.objects.count(), LogEntry.objects.count()


def _refused(staff: Client, address: str, **form: Any) -> None:
    before = _traces()
    assert STALE in _post(staff, address, **form)
    assert _traces() == before


def test_a_partner_that_was_suspended_anew_is_not_reactivated(staff: Client, acme: Partner) -> None:
    url = f"/admin/keys/partner/{acme.pk}/reactivate/"
    lifecycle.change_partner(COMMAND, acme, status="suspended", reason="unpaid")
    opened = seen(staff, url)
    for status, reason in (("active", "paid"), ("suspended", "its key leaked")):
        lifecycle.change_partner(COMMAND, acme, status=status, reason=reason)
    _refused(staff, url, reason="paid", seen=opened)
    acme.refresh_from_db()
    assert acme.status == "suspended"
    assert STALE not in _post(staff, url, reason="found to be safe", seen=seen(staff, url))
    acme.refresh_from_db()
    assert acme.status == "active"


def test_one_that_is_suspended_already_is_not_suspended_once_more(staff: Client, acme: Partner) -> None:
    lifecycle.change_partner(COMMAND, acme, status="suspended", reason="unpaid")
    before = _traces()
    page = _post(staff, f"/admin/keys/partner/{acme.pk}/suspend/", reason="mine")
    assert "Acme Title was suspended before." in page
    assert _traces() == before


def test_a_change_of_what_an_act_is_not_about_stops_none(staff: Client, acme: Partner, api: Api) -> None:
    suspend, revoke = f"/admin/keys/partner/{acme.pk}/suspend/", f"/admin/keys/apikey/{api.key.pk}/revoke/"
    of_partner, of_key = seen(staff, suspend), seen(staff, revoke)
    lifecycle.change_partner(COMMAND, acme, monthly_deed_quota=5)
    lifecycle.change(COMMAND, api.key, name="Renamed", scopes=["deed:read"])
    assert STALE not in _post(staff, suspend, reason="unpaid", seen=of_partner)
    assert STALE not in _post(staff, revoke, reason="leaked", seen=of_key)
    assert (Partner.objects.get().status, ApiKey.objects.get().revoked_reason) == ("suspended", "leaked")


def test_a_person_who_was_deactivated_anew_is_not_activated(owner: Client) -> None:
    clerk = hire("clerk", "support")
    url = f"/admin/auth/user/{clerk.pk}"
    _post(owner, f"{url}/deactivate/", reason="on leave")
    opened = seen(owner, f"{url}/activate/")
    _post(owner, f"{url}/activate/", reason="is back")
    _post(owner, f"{url}/deactivate/", reason="has left")
    _refused(owner, f"{url}/activate/", reason="is back", seen=opened)
    clerk.refresh_from_db()
    assert not clerk.is_active


def test_nor_with_other_roles_than_the_page_showed(owner: Client) -> None:
    clerk = hire("clerk", "support")
    url = f"/admin/auth/user/{clerk.pk}"
    _post(owner, f"{url}/deactivate/", reason="on leave")
    opened = seen(owner, f"{url}/activate/")
    group = clerk.groups.model.objects.get(name=roles.TITLES["owner"])
    _post(owner, f"{url}/change/", username="clerk", groups=[str(group.pk)], reason="by mistake")
    _refused(owner, f"{url}/activate/", reason="is back", seen=opened)


def test_a_second_factor_that_was_set_up_since_is_not_reset(owner: Client) -> None:
    clerk = hire("clerk", "support")
    url = f"/admin/auth/user/{clerk.pk}/reset_second_factor/"
    opened = seen(owner, url)
    _post(owner, url, reason="lost the telephone")
    page = _post(owner, url, reason="lost the telephone")
    assert "clerk had no second factor." in page
    assert AuditEntry.objects.filter(action="staff.second_factor_reset").count() == 1
    Authenticator.objects.create(user=clerk, name="new", confirmed=True)
    _refused(owner, url, reason="lost the telephone", seen=opened)
    assert Authenticator.objects.filter(user=clerk).exists()


def test_a_password_that_another_has_just_set_stays(owner: Client) -> None:
    clerk = hire("clerk", "support")
    url = f"/admin/auth/user/{clerk.pk}/password/"
    opened = seen(owner, url)
    _post(owner, url, **PASSWORDS, reason="hers", seen=opened)
    clerk.refresh_from_db()
    kept = clerk.password
    _refused(owner, url, **PASSWORDS, reason="his", seen=opened)
    clerk.refresh_from_db()
    assert clerk.password == kept


def test_an_edit_of_a_person_writes_only_what_it_changed(owner: Client, monkeypatch: Any) -> None:
    """Between reading the row and writing it another may deactivate the person."""
    clerk = hire("clerk", "support")
    his = log_in(clerk)
    url = f"/admin/auth/user/{clerk.pk}"
    form = {"username": "clerk", "email": "c@d.example", "groups": [], "reason": "new address"}
    read = StaffAdmin.get_object

    def get_object(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = read(self, *args, **kwargs)
        User.objects.filter(pk=clerk.pk).update(is_active=False)
        return found

    monkeypatch.setattr(StaffAdmin, "get_object", get_object)
    _post(owner, f"{url}/change/", **form)
    clerk.refresh_from_db()
    assert (clerk.email, clerk.is_active) == ("c@d.example", False)
    assert not is_in(his)
