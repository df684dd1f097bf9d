"""Partners are told of keys that end soon or are due for rotation, once for each."""

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
from django.utils import timezone

from keys import audit, lifecycle, warning
from keys.expiry import expiring_soon
from keys.models import ApiKey, Partner
from keys.signals import key_expiring
from tests.api import Api
from webhooks.models import Event

DAY = dt.timedelta(days=1)


@pytest.fixture
def told() -> Iterator[list[ApiKey]]:
    keys: list[ApiKey] = []

    def listen(key: ApiKey, **_: Any) -> None:
        keys.append(key)

    key_expiring.connect(listen)
    yield keys
    key_expiring.disconnect(listen)


def _key(partner: Partner, **fields: Any) -> ApiKey:
    return ApiKey.issue(partner, name="x", environment="live", **fields)[0]


def test_a_key_that_ends_within_two_weeks_is_told_of_once(
    acme: Partner, told: list[ApiKey], mailoutbox: list[Any]
) -> None:
    acme.contact_email = "it@acme.example"
    acme.save()
    key = _key(acme, expires_at=timezone.now() + 13 * DAY)
    _key(acme, expires_at=timezone.now() + 15 * DAY)
    _key(acme)
    assert (warning.warn(), warning.warn()) == (1, 0)
    assert told == [key]
    assert [(mail.to, key.prefix in mail.body) for mail in mailoutbox] == [(["it@acme.example"], True)]


def test_a_policy_warns_two_weeks_before_the_age(
    acme: Partner, told: list[ApiKey], time_machine: Any
) -> None:
    acme.key_max_age_days = 90
    acme.save()
    key = _key(acme)
    time_machine.move_to(timezone.now() + 75 * DAY)
    assert warning.warn() == 0
    time_machine.move_to(timezone.now() + 2 * DAY)
    assert warning.warn() == 1
    assert told == [key]


def test_each_end_is_told_of_once_however_often_it_is_moved(
    acme: Partner, told: list[ApiKey], mailoutbox: list[Any]
) -> None:
    acme.contact_email = "it@acme.example"
    acme.save()
    key = _key(acme, expires_at=timezone.now() + 3 * DAY)
    assert warning.warn() == 1
    lifecycle.change(audit.Actor.command("test"), key, expires_at=timezone.now() + 90 * DAY)
    assert warning.warn() == 0
    lifecycle.change(audit.Actor.command("test"), key, expires_at=timezone.now() + 5 * DAY)
    assert (warning.warn(), warning.warn()) == (1, 0)
    lifecycle.change_partner(audit.Actor.command("test"), acme, key_max_age_days=1)
    assert warning.warn() == 0, "a rotation would not keep it from expiring"
    assert told == [key, key]
    assert all("A rotation does not change that" in mail.body for mail in mailoutbox)


def test_an_expiry_is_told_of_after_a_rotation_that_was_due_before(
    acme: Partner, told: list[ApiKey], mailoutbox: list[Any], time_machine: Any
) -> None:
    acme.key_max_age_days, acme.contact_email = 90, "it@acme.example"
    acme.save()
    key = _key(acme, expires_at=timezone.now() + 120 * DAY)
    for days, warned in ((80, 1), (20, 0), (10, 1), (5, 0)):
        time_machine.move_to(timezone.now() + days * DAY)
        assert warning.warn() == warned
    assert told == [key, key]
    due, expires = (mail.body for mail in mailoutbox)
    assert f"/v2/keys/{key.pk}/rotate" in due
    assert "rotate" not in expires.split("UTC.")[1].replace("rotation", "")


def test_the_event_says_which_end_it_is(api: Api) -> None:
    lifecycle.change_partner(audit.Actor.command("test"), api.partner, key_max_age_days=10)
    assert warning.warn() == 1
    data = Event.objects.get(type="key.expiring").data
    due_at = api.key.created_at + 10 * DAY
    assert data["expires_at"] is None
    assert dt.datetime.fromisoformat(data["rotation_due_at"]) == due_at


def test_a_key_that_was_rotated_raises_no_alert(acme: Partner) -> None:
    def expiring() -> float:
        (metric,) = expiring_soon()
        return float(metric.samples[0].value)

    key = _key(acme, expires_at=timezone.now() + 3 * DAY)
    lifecycle.rotate(audit.Actor.command("test"), _key(acme))
    assert expiring() == 1
    lifecycle.revoke(audit.Actor.command("test"), key, reason="x")
    assert expiring() == 0


def test_what_is_over_is_not_told_of(api: Api, told: list[ApiKey], mailoutbox: list[Any]) -> None:
    acme = api.partner
    over = _key(acme)
    ApiKey.objects.filter(pk=over.pk).update(expires_at=timezone.now() - DAY)
    revoked = _key(acme, expires_at=timezone.now() + DAY)
    lifecycle.revoke(audit.Actor.command("test"), revoked, reason="x")
    rotated = _key(acme)
    lifecycle.rotate(audit.Actor.command("test"), rotated)
    assert warning.warn() == 0
    assert (told, mailoutbox) == ([], [])
