"""The audit trail: written with the act, and only ever added to."""

import pytest
from django.db import DatabaseError, connection, transaction

from keys import audit
from keys.models import AuditEntry, Partner


def test_an_entry_says_who_did_what(acme: Partner) -> None:
    entry = audit.record(
        audit.Actor.command("suspend"), "partner.suspended", acme, partner=acme, after={"status": "suspended"}
    )
    kept = AuditEntry.objects.get()
    assert (kept.actor_kind, kept.actor, kept.action) == ("command", "suspend", "partner.suspended")
    assert (kept.target_kind, kept.target_id, kept.partner) == ("keys.partner", str(acme.pk), acme)
    assert kept.previous_hash == audit.GENESIS
    assert kept.hash == entry.hash == audit.hash_of(kept)


def test_each_entry_is_chained_to_the_one_before(acme: Partner) -> None:
    first, second = (audit.record(audit.Actor.command("x"), "partner.changed", acme) for _ in range(2))
    assert second.previous_hash == first.hash != second.hash


@pytest.mark.parametrize("statement", ["UPDATE audit_entries SET actor = 'x'", "DELETE FROM audit_entries"])
def test_the_database_refuses_changes(acme: Partner, statement: str) -> None:
    audit.record(audit.Actor.command("x"), "partner.changed", acme)
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        connection.cursor().execute(statement)
    assert AuditEntry.objects.count() == 1
