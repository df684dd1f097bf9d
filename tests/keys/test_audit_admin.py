"""The audit trail in the admin: found, read, exported; changed by nobody."""

import csv
import io
import re
from typing import Any

import pytest
from django.test import Client

from keys import audit
from keys.admin.audit import csv_of
from keys.models import AuditEntry, Partner
from tests.staff import hire, log_in


@pytest.fixture
def entries(acme: Partner) -> dict[str, AuditEntry]:
    key, staff = audit.Actor("key", "dp_live_x", "203.0.113.9", "req_1"), audit.Actor("staff", "zoe")
    return {
        "by key": audit.record(key, "key.rotated", acme, partner=acme, before={"a": 1}, after={"b": "<i>"}),
        "by staff": audit.record(staff, "partner.suspended", acme, reason="unpaid"),
    }


def listed(staff: Client, **query: str) -> set[int]:
    page = staff.get("/admin/keys/auditentry/", query).content.decode()
    return {int(found) for found in re.findall(r"/admin/keys/auditentry/(\d+)/change/", page)}


def exported(staff: Client, query: str = "") -> list[dict[str, str]]:
    answer = staff.post(f"/admin/keys/auditentry/export/{query}")
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/csv")
    assert answer.streaming
    return list(csv.DictReader(io.StringIO(answer.getvalue().decode())))


def test_it_works(staff: Client, entries: dict[str, AuditEntry]) -> None:
    assert {entry.pk for entry in entries.values()} <= listed(staff)
    page = staff.get(f"/admin/keys/auditentry/{entries['by key'].pk}/change/").content.decode()
    for text in ("dp_live_x", "key.rotated", "203.0.113.9", "req_1", entries["by key"].hash, "&lt;i&gt;"):
        assert text in page
    assert 'name="_save"' not in page


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"actor_kind__exact": "key"}, {"by key"}),
        ({"action": "partner.suspended"}, {"by staff"}),
        ({"partner__id__exact": "{acme}"}, {"by key"}),
        ({"q": "zo"}, {"by staff"}),
        ({"q": "req_1"}, {"by key"}),
        ({"q": "{acme}"}, {"by key", "by staff"}),
        ({"at_from_0": "2030-01-01", "at_from_1": "00:00:00"}, set()),
        ({"at_to_0": "2020-01-01", "at_to_1": "00:00:00"}, set()),
    ],
)
def test_entries_are_found(
    staff: Client, entries: dict[str, AuditEntry], acme: Partner, query: dict[str, str], found: set[str]
) -> None:
    filled = {name: value.format(acme=acme.pk) for name, value in query.items()}
    ours = {entry.pk for entry in entries.values()}
    assert listed(staff, **filled) & ours == {entries[name].pk for name in found}


def test_actions_to_filter_by_are_those_that_were_done(staff: Client, entries: dict[str, AuditEntry]) -> None:
    page = staff.get("/admin/keys/auditentry/").content.decode()
    assert set(re.findall(r"\?action=([a-z._]+)", page)) == {
        "key.rotated",
        "partner.suspended",
        "staff.logged_in",
    }


def test_an_export_has_what_the_filters_leave_and_is_an_entry(
    staff: Client, entries: dict[str, AuditEntry]
) -> None:
    rows = exported(staff, "?action=key.rotated")
    assert [row["id"] for row in rows] == [str(entries["by key"].pk)]
    assert rows[0]["after"] == '{"b": "<i>"}'
    entry = AuditEntry.objects.latest("id")
    assert (entry.action, entry.actor, entry.after) == (
        "audit.exported",
        "root",
        {"filters": "action=key.rotated"},
    )


def test_an_export_is_asked_for_by_post(staff: Client) -> None:
    assert staff.get("/admin/keys/auditentry/export/").status_code == 405
    assert not AuditEntry.objects.filter(action="audit.exported").exists()


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    "formula",
    [
        *("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\n=1", "\u00a0=1", "＝1"),  # noqa: RUF001 - Excel's own
        *("fee;=1+1;", "fee; =1", ";=1", "a;;-1", "fee\t=1", "two\n=1", "two\r\n@SUM(A1)"),
    ],
)
def test_no_cell_of_an_export_is_a_formula(acme: Partner, formula: str, separator: str) -> None:
    """Whatever separates cells where it is opened."""
    audit.record(
        audit.Actor("token", formula), "partner.changed", acme, reason=formula, after={"name": formula}
    )
    text = "".join(csv_of(AuditEntry.objects.all()))
    for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
        for cell in row:
            for line in cell.splitlines():
                assert not line.lstrip().startswith(tuple("=+-@＝"))  # noqa: RUF001 - as above


def test_an_export_leaves_ordinary_text_as_it_is(acme: Partner) -> None:
    text = "net-30; fee -5 %, a+b@c.example = agreed"
    audit.record(audit.Actor("token", "zoe"), "partner.changed", acme, reason=text, after={"fee": -5})
    row = next(csv.DictReader(io.StringIO("".join(csv_of(AuditEntry.objects.all())))))
    assert (row["reason"], row["after"]) == (text, '{"fee": -5}')


def test_an_export_reads_in_pages(
    acme: Partner, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    monkeypatch.setattr("keys.audit_chain._CHUNK", 4)
    for _ in range(10):
        audit.record(audit.Actor.command("x"), "partner.changed", acme)
    with django_assert_num_queries(4):
        lines = list(csv_of(AuditEntry.objects.all()))
    assert len(lines) == 11


def test_readers_see_no_export(quick_passwords: None, db: None) -> None:
    page = log_in(hire("reader", "support")).get("/admin/keys/auditentry/").content.decode()
    assert "Export CSV" not in page


def test_the_list_costs_a_constant_number_of_queries(
    staff: Client, acme: Partner, django_assert_max_num_queries: Any
) -> None:
    for _ in range(12):
        audit.record(audit.Actor.command("x"), "partner.changed", acme, partner=acme)
    with django_assert_max_num_queries(15):
        assert staff.get("/admin/keys/auditentry/").status_code == 200
