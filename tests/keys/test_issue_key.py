"""manage.py issue_key."""

import pytest
from django.core.management import CommandError, call_command

from keys.models import ApiKey, Partner
from keys.secret import KeyText


def test_it_works(acme: Partner, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("issue_key", "Acme Title", name="CLI", environment="live", scope=["deed:read"])
    text = KeyText.parse(capsys.readouterr().out.strip())
    key = ApiKey.objects.get()
    assert text is not None
    assert key.matches(text)
    assert (key.partner, key.environment, key.scopes) == (acme, "live", ["deed:read"])


def test_a_partner_is_found_by_id(acme: Partner) -> None:
    call_command("issue_key", str(acme.pk), name="CLI")
    assert ApiKey.objects.get().environment == "test"


def test_an_unknown_partner_is_named(db: None) -> None:
    with pytest.raises(CommandError, match="no partner 'Acme'; --create-partner"):
        call_command("issue_key", "Acme", name="CLI")
    assert not Partner.objects.exists()


def test_a_partner_can_be_made(db: None) -> None:
    call_command("issue_key", "New Escrow", name="CLI", create_partner=True)
    assert Partner.objects.get().name == "New Escrow"


def test_a_partner_is_not_made_for_a_key_that_is_refused(db: None) -> None:
    with pytest.raises(CommandError, match="did you mean 'deed:read'"):
        call_command("issue_key", "New Escrow", name="CLI", create_partner=True, scope=["deed:raed"])
    assert not Partner.objects.exists()


def test_a_misspelt_scope_is_refused(acme: Partner) -> None:
    with pytest.raises(CommandError, match="did you mean 'deed:read'"):
        call_command("issue_key", "Acme Title", name="CLI", scope=["deed:raed"])
    assert not ApiKey.objects.exists()
