"""What the address of a staff page may ask for: whatever it is, it is no error of the server's."""

import pytest
from django.test import Client

from keys import audit
from keys.admin.audit import AuditEntryAdmin
from keys.models import Partner
from tests.api import Api

LISTS = ("keys/apikey/", "keys/partner/", "keys/auditentry/", "deeds/deed/", "billing/invoice/", "auth/user/")


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("query", ["q=%00", "id=%00", "partner__id__exact=%00", "o=%00", "p=%00", "e=%00"])
def test_a_nul_in_the_query_is_no_error(staff: Client, path: str, query: str) -> None:
    assert staff.get(f"/admin/{path}?{query}").status_code in {200, 302, 400}


@pytest.mark.parametrize("query", ["action=%00", "actor=%00", "actor__startswith=%00"])
def test_a_filter_with_a_nul_is_told_so(staff: Client, query: str) -> None:
    assert staff.get(f"/admin/keys/auditentry/?{query}").status_code == 400


@pytest.mark.parametrize("query", ["actor__regex=(((", "reason__iregex=%5B", "action__regex=*"])
def test_a_regular_expression_that_is_none_is_told_so(staff: Client, query: str) -> None:
    assert staff.get(f"/admin/keys/auditentry/?{query}").status_code == 400


@pytest.mark.parametrize(
    "path", ["keys/auditentry/export/", "billing/ledgerentry/export.csv", "billing/invoice/export.xlsx"]
)
@pytest.mark.parametrize("query", ["partner__id__exact=x", "partner__id__exact=%00"])
def test_a_download_of_what_can_not_be_filtered_is_told_so(
    staff: Client, api: Api, stranger: Api, path: str, query: str
) -> None:
    send = staff.post if path.startswith("keys/") else staff.get
    assert send(f"/admin/{path}?{query}").status_code == 400


def test_a_download_from_a_page_that_is_not_there_any_more_is_told_so(
    staff: Client, acme: Partner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AuditEntryAdmin, "list_per_page", 1)
    audit.record(audit.Actor.command("x"), "partner.changed", acme)
    assert staff.post("/admin/keys/auditentry/export/?p=99").status_code == 400
    assert staff.post("/admin/keys/auditentry/export/?p=2").status_code == 200


def test_a_list_that_can_not_be_filtered_so_is_shown_whole(staff: Client, api: Api, stranger: Api) -> None:
    answer = staff.get("/admin/keys/auditentry/?partner__id__exact=x")
    assert (answer.status_code, answer["Location"]) == (302, "/admin/keys/auditentry/?e=1")


@pytest.mark.parametrize("lookup", ["secret_sha256", "secret_sha256__startswith", "secret_sha256__regex"])
def test_the_hash_of_a_secret_can_not_be_felt_for(staff: Client, api: Api, lookup: str) -> None:
    query = {lookup: api.key.secret_sha256[:1]}
    assert staff.get("/admin/keys/apikey/", query).status_code == 400
