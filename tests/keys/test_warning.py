"""Partners are told of keys that end soon or are due for rotation, once for each."""

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
from django.utils import timezone

from keys import audit, lifecycle, warning
from keys.models import ApiKey, Partner
from keys.signals import key_expiring
from tests.api import Api

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
