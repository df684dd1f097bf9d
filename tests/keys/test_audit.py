"""The audit trail: written with the act, and only ever added to."""

from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction

from keys import audit
from keys.models import AuditEntry, AuditHead, Partner
from keys.secret import KeyText


def test_an_entry_says_who_did_what(acme: Partner) -> None:
    entry = audit.record(
        audit.Actor.command("suspend"), "partner.suspended", acme, partner=acme, after={"status": "suspended"}
    )
    kept = AuditEntry.objects.get()
    assert (kept.actor_kind, kept.actor, kept.action) == ("command", "suspend", "partner.suspended")
    assert (kept.target_kind, kept.target_id, kept.partner) == ("keys.partner", str(acme.pk), acme)
    assert kept.previous_hash == audit.GENESIS
    assert kept.hash == entry.hash == audit.hash_of(kept)


def test_a_secret_that_somebody_pastes_is_not_kept(acme: Partner) -> None:
    """It could never be taken out again."""
    text, signing = KeyText.generate("live"), "whsec_c2VjcmV0IG9mIGFuIGVuZHBvaW50"
    audit.record(
        audit.Actor.command("x"),
        "partner.changed",
        acme,
        before={"name": f"Acme {text.text}"},
        after={"urls": [{"url": f"https://acme.example/{signing}"}], "quota": 5},
        reason=f"{text.text} is in a public repository",
    )
    kept = AuditEntry.objects.get()
    assert kept.reason == f"{text.prefix}[redacted] is in a public repository"
    assert (kept.before["name"], kept.after["quota"]) == (f"Acme {text.prefix}[redacted]", 5)
    assert text.secret not in repr(AuditEntry.objects.values())
    assert signing not in repr(AuditEntry.objects.values())
    assert audit.hash_of(kept) == kept.hash


def test_each_entry_is_chained_to_the_one_before(acme: Partner) -> None:
    first, second = (audit.record(audit.Actor.command("x"), "partner.changed", acme) for _ in range(2))
    assert second.previous_hash == first.hash != second.hash


@pytest.mark.parametrize("statement", ["UPDATE audit_entries SET actor = 'x'", "DELETE FROM audit_entries"])
def test_the_database_refuses_changes(acme: Partner, statement: str) -> None:
    audit.record(audit.Actor.command("x"), "partner.changed", acme)
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        connection.cursor().execute(statement)
    assert AuditEntry.objects.count() == 1


# --- the chain ---------------------------------------------------------------------------------


def _write(acme: Partner, count: int = 5) -> list[AuditEntry]:
    return [
        audit.record(
            audit.Actor.command("x"), "partner.changed", acme, partner=acme, after={"number": number}
        )
        for number in range(count)
    ]


def _tamper(statement: str, *parameters: Any) -> None:
    """As who may do anything in the database: without triggers."""
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(statement, parameters)
        cursor.execute("SET session_replication_role = DEFAULT")


def _verify(*arguments: str) -> str:
    """What the command says; its exit code is 1 where it finds something."""
    out, err = StringIO(), StringIO()
    code: Any = 0
    try:
        call_command("verify_audit", *arguments, stdout=out, stderr=err)
    except SystemExit as ending:
        code = ending.code
    assert code == (1 if err.getvalue() else 0)
    return err.getvalue() or out.getvalue()


def test_a_whole_trail_is_unbroken(acme: Partner) -> None:
    entries = _write(acme)
    said = _verify()
    assert "5 entries, unbroken" in said
    assert f"5:{entries[-1].hash}" in said


@pytest.mark.parametrize(
    "address", ["::2", "::102:304", "::ffff:0:102:304", "64:ff9b::102:304", "2001:db8::", "::1"]
)
def test_an_address_that_postgres_writes_otherwise_is_no_edit(acme: Partner, address: str) -> None:
    audit.record(audit.Actor("staff", "zoe", address), "partner.changed", acme)
    assert "1 entries, unbroken" in _verify()


@pytest.mark.parametrize(
    "text", ["e\u0301 or é", "\u202e\u200b\ufeff", "\u2028", "\uffff", "👩\u200d💻", "İıß", '"\\']
)
def test_text_of_any_kind_reads_back_as_it_was_written(acme: Partner, text: str) -> None:
    facts = {text: [text, 1, None, {"b": 0.5, "a": -(2**70)}]}
    audit.record(audit.Actor.command(text), "partner.changed", acme, before=facts, after=facts, reason=text)
    assert "1 entries, unbroken" in _verify()


def test_an_empty_trail_is_unbroken(db: None) -> None:
    assert "0 entries, unbroken" in _verify()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("actor", "nobody"),
        ("actor_kind", "system"),
        ("action", "partner.made"),
        ("target_id", "1"),
        ("at", "2020-01-01T00:00:00Z"),
        ("after", '{"number": 9}'),
        ("before", '{"number": 9}'),
        ("reason", "because"),
        ("address", "203.0.113.9"),
        ("request_id", "req_1"),
        ("partner_id", None),
        ("hash", "0" * 64),
    ],
)
def test_an_edited_entry_is_named(acme: Partner, field: str, value: Any) -> None:
    third = _write(acme)[2]
    _tamper(f"UPDATE audit_entries SET {field} = %s WHERE id = %s", value, third.pk)  # noqa: S608 - ours
    assert f"entry {third.pk}: it was edited" in _verify()


def test_an_edited_entry_with_a_fitting_hash_is_found_at_the_next(acme: Partner) -> None:
    entries = _write(acme)
    entries[2].actor = "nobody"
    _tamper(
        "UPDATE audit_entries SET actor = 'nobody', hash = %s WHERE id = %s",
        audit.hash_of(entries[2]),
        entries[2].pk,
    )
    assert f"entry {entries[3].pk}: it does not follow" in _verify()


@pytest.mark.parametrize("number", [0, 2])
def test_a_removed_entry_is_found(acme: Partner, number: int) -> None:
    entries = _write(acme)
    _tamper("DELETE FROM audit_entries WHERE id = %s", entries[number].pk)
    assert f"entry {entries[number + 1].pk}: it does not follow" in _verify()


@pytest.mark.parametrize("count", [1, 3, 5])
def test_the_last_entries_can_not_be_removed_unseen(acme: Partner, count: int) -> None:
    entries = _write(acme)
    _tamper("DELETE FROM audit_entries WHERE id > %s", entries[-count].pk - 1)
    assert "but 5 were written; the last ones were removed" in _verify()


def test_two_entries_that_changed_places_are_found(acme: Partner) -> None:
    entries = _write(acme)
    first, second = entries[1].pk, entries[2].pk
    for old, new in ((first, -1), (second, first), (-1, second)):
        _tamper("UPDATE audit_entries SET id = %s WHERE id = %s", new, old)
    assert f"entry {first}: it does not follow entry {entries[0].pk}" in _verify()


def test_a_removal_is_seen_after_further_entries_too(acme: Partner) -> None:
    entries = _write(acme)
    _tamper("DELETE FROM audit_entries WHERE id = %s", entries[-1].pk)
    further = _write(acme, 2)
    assert f"entry {further[0].pk}: it does not follow entry {entries[-2].pk}" in _verify()


def _forge(after: AuditEntry, pk: int) -> None:
    """An entry whose own hash fits, put in as if it had followed another."""
    forged = AuditEntry.objects.get(pk=after.pk)
    forged.pk, forged.actor, forged.previous_hash = pk, "nobody", after.hash
    forged.hash = audit.hash_of(forged)
    forged.save(force_insert=True)


def test_an_entry_put_in_between_is_found(acme: Partner) -> None:
    entries = _write(acme)
    _tamper("DELETE FROM audit_entries WHERE id = %s", entries[2].pk)
    _forge(entries[1], entries[2].pk)
    assert f"entry {entries[3].pk}: it does not follow entry {entries[2].pk}" in _verify()


def test_an_entry_put_in_at_the_end_is_found(acme: Partner) -> None:
    entries = _write(acme)
    _forge(entries[-1], entries[-1].pk + 1)
    assert f"entry {entries[-1].pk + 1}: the chain goes on after the head" in _verify()


def test_a_head_that_fits_needs_our_signature(acme: Partner) -> None:
    entries = _write(acme)
    _tamper("DELETE FROM audit_entries WHERE id = %s", entries[-1].pk)
    _tamper("UPDATE audit_head SET count = 4, last_id = %s, hash = %s", entries[-2].pk, entries[-2].hash)
    assert "the head: it was edited" in _verify()


def test_a_removed_head_is_found_and_not_mended_by_the_next_entry(acme: Partner) -> None:
    _write(acme)
    _tamper("DELETE FROM audit_head")
    assert "the head, which is missing" in _verify()
    further = _write(acme, 1)
    assert f"entry {further[0].pk}: it does not follow" in _verify()


def test_a_forged_chain_with_its_head_is_never_signed_by_a_further_entry(
    acme: Partner, caplog: pytest.LogCaptureFixture
) -> None:
    entries = _write(acme)
    _forge(entries[-1], entries[-1].pk + 1)
    forged = AuditEntry.objects.get(pk=entries[-1].pk + 1)
    _tamper("UPDATE audit_head SET count = 6, last_id = %s, hash = %s", forged.pk, forged.hash)
    _tamper("SELECT setval('audit_entries_id_seq', %s)", forged.pk)
    for _ in range(2):
        further = _write(acme, 1)
        assert further[0].previous_hash != audit.GENESIS
        assert "the head: it was edited" in _verify()
    assert "audit_head_not_ours" in caplog.text


def test_a_trail_that_was_emptied_does_not_begin_anew(acme: Partner) -> None:
    _write(acme)
    _tamper("DELETE FROM audit_entries")
    _tamper("DELETE FROM audit_head")
    assert "the head, which is missing" in _verify()
    for _ in range(2):
        _write(acme, 1)
        assert "its signature is not ours" in _verify()


def test_an_entry_put_in_before_the_first_is_found(acme: Partner) -> None:
    entries = _write(acme)
    entries[0].pk = -1
    entries[0].save(force_insert=True)
    assert "does not follow entry -1" in _verify()


def test_a_trail_that_was_set_back_is_found_by_a_head_noted_elsewhere(acme: Partner) -> None:
    _write(acme, 3)
    kept = AuditHead.objects.values().get()
    _write(acme, 2)
    noted = str(AuditHead.objects.get())
    assert "unbroken" in _verify("--seen", noted)
    _tamper("DELETE FROM audit_entries WHERE id > %s", kept["last_id"])
    _tamper(
        "UPDATE audit_head SET count = 3, last_id = %s, hash = %s, signature = %s",
        kept["last_id"],
        kept["hash"],
        kept["signature"],
    )
    assert "unbroken" in _verify()
    assert "5 entries before, and now 3" in _verify("--seen", noted)
    _write(acme, 2)
    assert "not the one noted before" in _verify("--seen", noted)


def test_a_rotated_secret_key_still_knows_its_signature(acme: Partner, settings: Any) -> None:
    _write(acme)
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another" * 10
    assert "unbroken" in _verify()
    settings.SECRET_KEY_FALLBACKS = []
    assert "the head: it was edited" in _verify()


def test_the_database_keeps_the_head(acme: Partner) -> None:
    _write(acme)
    with pytest.raises(DatabaseError, match="is kept"), transaction.atomic():
        connection.cursor().execute("DELETE FROM audit_head")


@pytest.mark.parametrize(
    ("taken_away", "done"),
    [
        ("ALTER TABLE audit_entries DISABLE TRIGGER audit_entries_are_kept", "UPDATE audit_entries"),
        (
            "ALTER TABLE audit_entries ENABLE REPLICA TRIGGER audit_entries_are_kept",
            "DELETE FROM audit_entries",
        ),
        ("DROP TRIGGER audit_entries_are_kept ON audit_entries", "UPDATE audit_entries"),
        (
            """CREATE OR REPLACE FUNCTION refuse_change_of_audit_entries() RETURNS trigger
            LANGUAGE plpgsql AS $$ BEGIN RETURN COALESCE(NEW, OLD); END $$""",
            "UPDATE audit_entries",
        ),
        ("ALTER TABLE audit_head DISABLE TRIGGER USER", "DELETE FROM audit_head"),
    ],
)
def test_a_database_that_no_longer_refuses_changes_is_found_and_loses_nothing(
    acme: Partner, taken_away: str, done: str
) -> None:
    _write(acme)
    with connection.cursor() as cursor:
        # Or the table can't be altered in this transaction.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(taken_away)
    kept = list(AuditEntry.objects.values()), list(AuditHead.objects.values())
    said = _verify()
    assert "5 entries are unbroken, but the database lets them be changed" in said
    assert done in said
    assert (list(AuditEntry.objects.values()), list(AuditHead.objects.values())) == kept


def test_what_is_rolled_back_leaves_no_entry_and_no_gap(acme: Partner) -> None:
    _write(acme, 2)
    with transaction.atomic():
        _write(acme, 1)
        transaction.set_rollback(True)
    _write(acme, 1)
    assert "3 entries, unbroken" in _verify()


@pytest.mark.django_db(transaction=True)
def test_entries_written_at_once_make_one_chain() -> None:
    acme = Partner.objects.create(name="Acme Title")

    def write(_: int) -> None:
        try:
            _write(acme, 3)
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    assert "18 entries, unbroken" in _verify()
