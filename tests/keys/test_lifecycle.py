"""What can be done to a key, from outside: what the next request with it meets."""

import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.utils import timezone

from keys import audit, lifecycle
from keys.audit import Actor
from keys.models import ApiKey, AuditEntry, Partner
from keys.signals import key_revoked, key_rotated
from tests.api import Api

BY = Actor.command("test")
HOUR = dt.timedelta(hours=1)


def _status(text: str) -> tuple[int, str]:
    answer = Api(None, None, text).get("/v2/deeds")  # type: ignore[arg-type]  # only the text counts here
    return answer.status_code, answer.json().get("code", "")


def test_an_issued_key_works_and_is_audited(acme: Partner) -> None:
    key, text = lifecycle.issue(BY, acme, name="SoftPro", environment="live", scopes=["deed:read"])
    assert _status(text) == (200, "")
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.target_id, entry.after["scopes"]) == (
        "key.issued",
        str(key.pk),
        ["deed:read"],
    )
    assert text not in str(entry.after)
    assert key.secret_sha256 not in str(entry.after)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("scopes", ["deed:reed"], "deed:read"),
        ("allowed_cidrs", ["10.0.0.1/8"], "host bits"),
        ("allowed_cidrs", ["office"], "203.0.113.0/24"),
        ("allowed_cidrs", [f"10.0.0.{number}/32" for number in range(101)], "At most 100"),
        ("scopes", ["deed:read"] * 20, "At most"),
        ("expires_at", dt.datetime(2020, 1, 1, tzinfo=dt.UTC), "past"),
        ("rate_limit_per_minute", 0, "from 1"),
        ("rate_limit_burst", 10_000_000, "from 1"),
    ],
)
def test_a_wrong_value_is_named(acme: Partner, field: str, value: Any, says: str) -> None:
    fields: dict[str, Any] = {"name": "x", "environment": "live", "scopes": [], field: value}
    with pytest.raises(ValidationError) as refused:
        lifecycle.issue(BY, acme, **fields)
    assert says in str(refused.value.message_dict[field])
    assert not ApiKey.objects.exists()
    assert not AuditEntry.objects.exists()


def test_a_change_holds_on_the_next_request(api: Api) -> None:
    assert _status(api.text) == (200, "")
    lifecycle.change(BY, api.key, scopes=["deed:create"])
    assert _status(api.text) == (403, "insufficient_scope")
    entry = AuditEntry.objects.get()
    assert entry.action == "key.changed"
    assert (entry.after["scopes"], "deed:read" in entry.before["scopes"]) == (["deed:create"], True)


def test_a_change_to_the_same_writes_nothing(api: Api) -> None:
    lifecycle.change(BY, api.key, name=api.key.name)
    assert not AuditEntry.objects.exists()


def test_the_secret_can_not_be_changed(api: Api) -> None:
    with pytest.raises(TypeError, match="secret_sha256"):
        lifecycle.change(BY, api.key, secret_sha256="0" * 64)


def test_a_revoked_key_is_refused_and_told_of(api: Api) -> None:
    told: list[ApiKey] = []

    def listen(key: ApiKey, **_: Any) -> None:
        told.append(key)

    key_revoked.connect(listen)
    try:
        assert _status(api.text) == (200, "")
        assert lifecycle.revoke(BY, api.key, reason="leaked") is True
        assert lifecycle.revoke(BY, api.key, reason="again") is False
    finally:
        key_revoked.disconnect(listen)
    assert _status(api.text) == (401, "api_key_revoked")
    assert told == [api.key]
    assert AuditEntry.objects.get().reason == "leaked"


def test_a_suspended_partner_and_back(api: Api) -> None:
    assert _status(api.text) == (200, "")
    lifecycle.change_partner(BY, api.partner, status="suspended", reason="unpaid")
    assert _status(api.text) == (401, "partner_suspended")
    lifecycle.change_partner(BY, api.partner, status="active")
    assert _status(api.text) == (200, "")
    actions = list(AuditEntry.objects.order_by("id").values_list("action", flat=True))
    assert actions == ["partner.suspended", "partner.reactivated"]


def test_both_keys_work_during_the_overlap(api: Api, time_machine: Any) -> None:
    told: list[ApiKey] = []

    def listen(key: ApiKey, **_: Any) -> None:
        told.append(key)

    key_rotated.connect(listen)
    try:
        new, text = lifecycle.rotate(BY, api.key, overlap=HOUR)
    finally:
        key_rotated.disconnect(listen)
    assert told == [api.key]
    assert (new.scopes, new.rate_limit_per_minute) == (api.key.scopes, api.key.rate_limit_per_minute)
    assert _status(api.text) == _status(text) == (200, "")
    old = Api(api.partner, api.key, api.text).get("/v2/deeds")
    assert old["Deprecation"].startswith("@")
    assert "GMT" in old["Sunset"]
    assert "Deprecation" not in Api(api.partner, new, text).get("/v2/deeds")
    time_machine.move_to(timezone.now() + 2 * HOUR)
    assert _status(api.text) == (401, "api_key_expired")
    assert _status(text) == (200, "")


def test_a_rotation_never_prolongs_the_old_key(acme: Partner) -> None:
    ends = timezone.now() + HOUR
    key, _ = ApiKey.issue(acme, name="x", environment="live", expires_at=ends)
    new, _ = lifecycle.rotate(BY, key)
    assert (key.expires_at, new.expires_at) == (ends, ends)


def test_a_rotated_key_is_not_rotated_again_but_its_successor_is(api: Api) -> None:
    new, text = lifecycle.rotate(BY, api.key)
    with pytest.raises(ValidationError, match=new.prefix):
        lifecycle.rotate(BY, api.key)
    _, newest = lifecycle.rotate(BY, new)
    assert {_status(one) for one in (api.text, text, newest)} == {(200, "")}


@pytest.mark.parametrize("overlap", [dt.timedelta(seconds=-1), dt.timedelta(days=7, seconds=1)])
def test_an_overlap_out_of_bounds_is_refused(api: Api, overlap: dt.timedelta) -> None:
    with pytest.raises(ValidationError, match="604800"):
        lifecycle.rotate(BY, api.key, overlap=overlap)
    assert ApiKey.objects.count() == 1


def test_an_ended_key_is_not_rotated(api: Api) -> None:
    lifecycle.revoke(BY, api.key, reason="x")
    with pytest.raises(ValidationError, match="has ended"):
        lifecycle.rotate(BY, api.key)


def test_no_overlap_ends_the_old_key_at_once(api: Api) -> None:
    _, text = lifecycle.rotate(BY, api.key, overlap=dt.timedelta())
    assert _status(api.text) == (401, "api_key_expired")
    assert _status(text) == (200, "")


# --- acts at once ------------------------------------------------------------------------------


def _await_a_lock() -> None:
    """Until another connection waits for a lock."""
    waiting = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    ends = timezone.now() + dt.timedelta(seconds=20)
    with connection.cursor() as cursor:
        while timezone.now() < ends:
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute(waiting)
            if cursor.fetchone() != (0,):
                return
    raise AssertionError("nobody waits")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "act",
    [
        lambda api: lifecycle.change_partner(BY, api.partner, name="Acme Title & Escrow"),
        lambda api: lifecycle.change_partner(BY, api.partner, status="suspended", reason="unpaid"),
        lambda api: lifecycle.change(BY, api.key, name="Renamed"),
        lambda api: lifecycle.rotate(BY, api.key),
        lambda api: lifecycle.revoke(BY, api.key, reason="leaked"),
    ],
    ids=["rename", "suspend", "change", "rotate", "revoke"],
)
def test_two_acts_at_once_wait_for_each_other_and_both_are_done(
    api: Api, act: Callable[[Api], object]
) -> None:
    """The first has written its entry, and will look at the partner and change the key when the other has
    begun."""

    def elsewhere() -> None:
        try:
            act(Api(api.partner, ApiKey.objects.get(pk=api.key.pk), api.text))
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            audit.record(BY, "partner.noted", api.partner, partner=api.partner)
            other = pool.submit(elsewhere)
            _await_a_lock()
            ApiKey.objects.filter(pk=api.key.pk).update(rate_limit_burst=7)
        other.result(timeout=20)
    assert AuditEntry.objects.count() == 2
    assert ApiKey.objects.get(pk=api.key.pk).rate_limit_burst == 7


@pytest.mark.django_db(transaction=True)
def test_an_order_does_not_wait_for_a_change_of_its_partner(api: Api, order: Any) -> None:
    with transaction.atomic():
        lifecycle.change_partner(BY, api.partner, budget_cap=500)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(partial(_order_elsewhere, api, order())).result(timeout=20)
    assert answer == 202


def _order_elsewhere(api: Api, body: dict[str, Any]) -> int:
    try:
        return int(api.post("/v2/deeds", body).status_code)
    finally:
        connection.close()
