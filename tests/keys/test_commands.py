"""What can be done to keys on the command line."""

import datetime as dt
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from keys.models import ApiKey, AuditEntry, Partner
from keys.secret import KeyText
from tests.api import Api


def test_a_key_is_listed_without_its_secret(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("list_keys", json=True)
    shown = json.loads(capsys.readouterr().out)
    assert (shown["prefix"], shown["partner"], shown["state"]) == (api.key.prefix, "Acme Title", "active")
    call_command("list_keys", partner="Acme Title")
    out = capsys.readouterr().out
    assert api.key.prefix in out
    assert api.text not in out


def test_only_those_due_are_listed(api: Api, capsys: pytest.CaptureFixture[str], time_machine: Any) -> None:
    call_command("change_partner", "Acme Title", key_max_age_days=90, reason="policy")
    capsys.readouterr()
    call_command("list_keys", due=True)
    assert capsys.readouterr().out == ""
    # From the warning on, as in the admin.
    time_machine.move_to(timezone.now() + dt.timedelta(days=77))
    call_command("list_keys", due=True)
    assert api.key.prefix in capsys.readouterr().out


def test_what_was_set_can_be_cleared(api: Api) -> None:
    ends = "2030-01-01T00:00:00Z"
    call_command("change_key", api.key.prefix, "--expires-at", ends, "--not-before", "2026-01-01T00:00:00Z")
    api.key.refresh_from_db()
    assert api.key.expires_at == dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    call_command("change_key", api.key.prefix, "--clear", "expires_at", "--clear", "not_before")
    kept = ApiKey.objects.get(pk=api.key.pk)
    assert (kept.not_before, kept.expires_at) == (None, None)
    call_command("change_partner", "Acme Title", "--name", "Acme", "--budget-cap", "5.00", "--reason", "x")
    call_command("change_partner", "Acme", "--clear", "budget_cap", "--reason", "x")
    api.partner.refresh_from_db()
    assert (api.partner.name, api.partner.budget_cap) == ("Acme", None)


@pytest.mark.parametrize("time", ["2030-01-01T00:00:00", "2030-01-01", "tomorrow"])
@pytest.mark.parametrize("option", ["--expires-at", "--not-before"])
def test_a_time_without_its_zone_is_refused(api: Api, option: str, time: str) -> None:
    with pytest.raises(CommandError, match="zone"):
        call_command("change_key", api.key.prefix, option, time)


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-01:00"])
@pytest.mark.parametrize("option", ["--expires-at", "--not-before"])
def test_a_time_that_no_calendar_has_spoils_no_key(api: Api, option: str, time: str) -> None:
    """Postgres would keep it, and every request with the key, and every list with it, would crash."""
    with pytest.raises(CommandError, match="years 1 to 9999"):
        call_command("change_key", api.key.prefix, option, time)
    assert api.get("/v2/keys").json()["data"][0]["expires_at"] is None


@pytest.mark.parametrize("amount", ["abc", "NaN", "sNaN", "Infinity", ""])
def test_an_amount_that_is_none_is_refused_in_words(api: Api, amount: str) -> None:
    with pytest.raises(CommandError, match=r"an amount such as 500\.00"):
        call_command("change_partner", "Acme Title", "--budget-cap", amount, "--reason", "x")


@pytest.mark.parametrize("seconds", ["-1", "604801", str(10**18), str(-(10**18))])
def test_an_overlap_out_of_bounds_is_refused_in_words(api: Api, seconds: str) -> None:
    with pytest.raises(CommandError, match="from 0 to 604800"):
        call_command("rotate_key", api.key.prefix, "--overlap-seconds", seconds)
    assert ApiKey.objects.count() == 1


@pytest.mark.parametrize("reason", ["", "  ", "a\nb"])
def test_a_reason_has_to_say_something(api: Api, reason: str) -> None:
    for command in (
        ["revoke_key", api.key.prefix],
        ["change_partner", "Acme Title", "--status", "suspended"],
        ["report_leak", api.text],
    ):
        with pytest.raises(CommandError, match="say why"):
            call_command(*command, "--reason", reason)
    assert api.get("/v2/deeds").status_code == 200
    assert not AuditEntry.objects.exists()


def test_a_policy_of_a_hundred_years_is_the_longest(api: Api) -> None:
    call_command("change_partner", "Acme Title", key_max_age_days=36_500, reason="x")
    with pytest.raises(CommandError, match="36500"):
        call_command("change_partner", "Acme Title", key_max_age_days=10**9, reason="x")
    assert api.get("/v2/keys").json()["data"][0]["rotation_due_at"].startswith("21")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--key-max-age-days", "0", "a day at the least"), ("--budget-cap", "-1", "can't be negative")],
)
def test_a_bound_that_makes_no_sense_is_refused_in_words(
    api: Api, option: str, value: str, said: str
) -> None:
    with pytest.raises(CommandError, match=said) as refused:
        call_command("change_partner", "Acme Title", option, value, "--reason", "x")
    assert "Constraint" not in str(refused.value)


def test_a_key_is_revoked(api: Api) -> None:
    call_command("revoke_key", api.key.prefix, reason="leaked")
    assert api.get("/v2/deeds").json()["code"] == "api_key_revoked"
    entry = AuditEntry.objects.get()
    assert (entry.actor_kind, entry.actor, entry.reason) == ("command", "revoke_key", "leaked")


def test_a_key_is_rotated(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("rotate_key", str(api.key.pk), overlap_seconds=60)
    text = capsys.readouterr().out.strip()
    assert KeyText.parse(text) is not None
    assert Api(api.partner, api.key, text).get("/v2/deeds").status_code == 200
    with pytest.raises(CommandError, match="rotated already"):
        call_command("rotate_key", api.key.prefix)


def test_a_key_is_changed(api: Api) -> None:
    call_command("change_key", api.key.prefix, scopes=["deed:create"])
    assert api.get("/v2/deeds").json()["required_scope"] == "deed:read"
    with pytest.raises(CommandError, match="did you mean 'deed:read'"):
        call_command("change_key", api.key.prefix, scopes=["deed:raed"])
    with pytest.raises(CommandError, match="--scope"):
        call_command("change_key", api.key.prefix)


def test_a_partner_is_suspended(api: Api) -> None:
    call_command("change_partner", "Acme Title", status="suspended", reason="unpaid")
    assert api.get("/v2/deeds").json()["code"] == "partner_suspended"


@pytest.mark.parametrize(
    "arguments",
    [
        ["issue_key", "Acme Title", "--name", "\udcff"],
        ["issue_key", "Acme Title", "--name", "\x1b[31mred"],
        ["issue_key", "\udcff", "--name", "x"],
        ["issue_key", "\udcff", "--name", "x", "--create-partner"],
        ["change_partner", "\udcff", "--reason", "x", "--name", "y"],
        ["change_partner", "Acme Title", "--reason", "x", "--name", "\udcff"],
        ["revoke_key", "\udcff", "--reason", "x"],
    ],
)
def test_what_is_no_text_is_refused_in_words(api: Api, arguments: list[str]) -> None:
    """A byte that is not UTF-8 arrives as half a character, and an escape would be a terminal's command."""
    before = list(ApiKey.objects.values()), list(Partner.objects.values())
    with pytest.raises(CommandError):
        call_command(*arguments)
    assert (list(ApiKey.objects.values()), list(Partner.objects.values())) == before


def test_what_is_not_there_is_named_unless_it_is_a_secret(api: Api) -> None:
    with pytest.raises(CommandError, match="dp_live_nothing"):
        call_command("revoke_key", "dp_live_nothing", reason="x")
    other = KeyText.generate("live").text
    with pytest.raises(CommandError) as refused:
        call_command("revoke_key", other, reason="x")
    assert other not in str(refused.value)
