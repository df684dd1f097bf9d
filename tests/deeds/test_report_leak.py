"""manage.py report_leak: a key on the street is revoked, and what was done with it is told."""

import datetime as dt
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from billing import partitions
from billing.partitions import Month
from deeds import leaks
from keys.models import ApiKey, AuditEntry, Partner
from keys.secret import KeyText
from tests.api import Api

Orders = Callable[..., dict[str, Any]]


V1_ORDER: dict[str, Any] = {
    "order_id": "V1-LEAK",
    "property_address": "123 Main St",
    "parties": {"grantor": "ALICE SMITH", "grantee": "BOB JONES"},
    "data": {
        "county": "Los Angeles",
        "apn": "8381-021-001",
        "legal_description": "LOT 1",
        "vesting": "a single man",
        "dtt": {"is_exempt": True, "exemption_reason": "R&T 11930: gift"},
    },
}


def _report(source: str, **options: Any) -> str:
    out = io.StringIO()
    call_command("report_leak", source, stdout=out, **options)
    return out.getvalue()


def test_it_works(api: Api, order: Orders) -> None:
    other = Api.of(api.partner)
    read = other.post("/v2/deeds", order(order_id="LEAK-1")).json()["id"]
    unread = other.post("/v2/deeds", order(order_id="LEAK-2")).json()["id"]
    ordered = api.post("/v2/deeds", order(order_id="LEAK-3")).json()["id"]
    api.post("/v2/deeds", order(order_id="LEAK-3"))
    api.get(f"/v2/deeds/{read}")
    api.get("/v2/deeds/01900000-0000-7000-8000-000000000000")
    said = _report(api.text)
    assert api.get("/v2/deeds").json()["code"] == "api_key_revoked"
    assert f"{api.key.prefix} (Test) of Acme Title is revoked now." in said
    assert "4 requests since" in said
    for line in ("1  POST /v2/deeds 202", "1  GET /v2/deeds/{deed_id} 200", "1  GET /v2/deeds/{deed_id} 404"):
        assert line in said
    assert "4  127.0.0.1" in said
    assert f"Deeds read or changed by their id: 1\n    {read}  LEAK-1 (grant, queued)\n" in said
    assert f"Deeds ordered: 1\n    {ordered}  LEAK-3 (grant, queued)\n" in said
    assert "Pages of" not in said
    assert "Keys issued: 0\n" in said
    assert unread not in said
    assert api.text not in said
    assert "ALICE" not in said, "a report about a leak is no second one"
    assert other.get("/v2/deeds").status_code == 200
    assert AuditEntry.objects.get().action == "key.revoked"


def test_what_was_read_and_ordered_by_the_first_version_is_told(
    api: Api, order: Orders, settings: Any, main_api: Any
) -> None:
    settings.V1_WAIT_SECONDS = 0.0
    other = Api.of(api.partner)
    read = other.post("/v2/deeds", order(order_id="LEAK-1")).json()["id"]
    assert api.get(f"/v1/deeds/{read}").status_code == 200
    answer = api.post("/v1/deeds/quitclaim", V1_ORDER)
    assert answer.status_code == 202, answer.content
    said = _report(api.text)
    assert "1  GET /v1/deeds/{deed} 200" in said
    assert f"by their id: 1\n    {read}  LEAK-1 (grant, queued)\n" in said
    assert f"Deeds ordered: 1\n    {answer.json()['external_deed_id']}  V1-LEAK (quitclaim, queued)\n" in said


def test_pages_of_lists_say_how_many_deeds_they_may_have_shown(
    api: Api, stranger: Api, order: Orders, acme: Partner
) -> None:
    """Those of the key's partner and mode, made before the last page was read."""
    test_mode = Api.of(acme, environment="test")
    for number in range(3):
        api.post("/v2/deeds", order(order_id=f"LIST-{number}"))
    for other in (test_mode, stranger):
        other.post("/v2/deeds", order())
    api.get("/v2/deeds?limit=1")
    api.get("/v2/deeds?limit=0")
    Api.of(acme).post("/v2/deeds", order(order_id="LATER"))
    said = _report(api.text)
    assert (
        "Pages of GET /v2/deeds read: 1. With names and addresses they may have shown up to 3 deeds." in said
    )


def test_from_where_a_revoked_key_is_still_tried_is_told(api: Api, stranger: Api, settings: Any) -> None:
    """The thief's address, and the partner's forgotten machine."""
    settings.TRUSTED_PROXY_HOPS = 1
    assert "Refused with the key: 0\n" in _report(api.text)
    for address in ("203.0.113.9", "198.51.100.7", "203.0.113.9"):
        assert api.get("/v2/deeds", X_Forwarded_For=address).json()["code"] == "api_key_revoked"
    wrong = Api(api.partner, api.key, KeyText("live", api.key.key_id, "0" * 43).text)
    wrong.get("/v2/deeds", X_Forwarded_For="192.0.2.1")
    stranger.get("/v2/deeds", X_Forwarded_For="192.0.2.2")
    said = _report(api.text)
    assert "Refused with the key: 3\n           2  203.0.113.9  api_key_revoked, the last 20" in said
    assert "           1  198.51.100.7  api_key_revoked, the last 20" in said
    assert "No request since" in said, "what was refused is not what it did"
    assert "192.0.2." not in said, "nobody fills the report who has only the id"


def test_what_was_left_behind_is_listed(api: Api, settings: Any) -> None:
    """A key and an endpoint would let whoever took the key go on without it."""
    settings.WEBHOOKS_ALLOW_HTTP, settings.WEBHOOKS_ALLOW_PRIVATE_ADDRESSES = True, ["127.0.0.0/8"]
    own, foreign = Api.of(api.partner), Api.of(api.partner)
    issued = api.post("/v2/keys", {"name": "Foothold", "scopes": ["deed:read"]}).json()
    successor = api.post(f"/v2/keys/{own.key.pk}/rotate", {}).json()
    hook = {"url": "http://127.0.0.1:9/ears", "event_types": ["*"], "description": ""}
    endpoint = api.post("/v2/webhook-endpoints", hook).json()
    foreign.post("/v2/keys", {"name": "Honest", "scopes": ["deed:read"]})
    said = _report(api.text)
    assert "Changes made: 3" in said
    assert f"key.issued  {issued['id']}  {issued['prefix']}" in said
    assert f"key.rotated  {own.key.pk}  {successor['prefix']}" in said
    assert f"webhook_endpoint.created  {endpoint['id']}  http://127.0.0.1:9/ears" in said
    assert "Keys issued: 2" in said
    assert f"{issued['prefix']}  Foothold (active)" in said
    assert f"{successor['prefix']}  Test (active)" in said
    assert "--also-issued revokes them too" in said
    assert "Honest" not in said
    assert ApiKey.objects.exclude(revoked_at=None).get() == api.key


def test_keys_issued_with_it_are_revoked_too_when_asked(api: Api) -> None:
    """With those that these issued in turn, each with a report of its own; the partner's others stay."""
    scopes = ["key:manage", "deed:read"]
    child = api.post("/v2/keys", {"name": "Child", "scopes": scopes}).json()
    as_child = Api(api.partner, ApiKey.objects.get(pk=child["id"]), child["api_key"])
    grandchild = as_child.post("/v2/keys", {"name": "Grandchild", "scopes": scopes}).json()
    other = Api.of(api.partner)
    said = _report(api.text, also_issued=True)
    assert said.count("is revoked now") == 3
    assert f"{child['prefix']} (Child) of Acme Title, issued with {api.key.prefix}, is revoked now." in said
    assert f"(Grandchild) of Acme Title, issued with {child['prefix']}, is revoked now." in said
    assert "--also-issued" not in said
    assert as_child.get("/v2/deeds").json()["code"] == "api_key_revoked"
    assert ApiKey.objects.get(pk=grandchild["id"]).revoked_reason.startswith("Issued with dp_live_")
    assert other.get("/v2/deeds").status_code == 200
    # A second run, for what was still under way during the first, finds the same.
    assert _report(api.text, also_issued=True).count("was revoked before") == 3


def test_a_log_of_many_rows_is_looked_through_by_its_index(api: Api) -> None:
    """200,000 requests of a month, one in fifty of them the partner's."""
    now = timezone.now()
    since = now - dt.timedelta(days=30)
    partitions.make(sorted({Month.of(since + dt.timedelta(days=day)) for day in range(31)}))
    _log_requests(api, every=50, of=200_000)
    # Wherever the month begins, this partition has half of the rows or more.
    most = Month.of(now - dt.timedelta(days=15)).table
    for rows in (
        leaks.answers_counted(api.key, since=since),
        leaks.deeds_named(api.key, since=since),
        leaks.refusals_counted(api.key, since=since),
    ):
        plan = rows.explain()
        assert f"{most}_partner_id_at_idx" in plan, plan
        assert f"Seq Scan on {most}" not in plan, plan
    begun = time.monotonic()
    said = _report(api.text)
    assert time.monotonic() - begun < 10, "a minute is the bound for a log of millions"
    assert "4000 requests since" in said


def test_every_key_of_a_file_is_found_wherever_it_lies(acme: Partner, tmp_path: Path) -> None:
    keys = [Api.of(acme) for _ in range(3)]
    across = "x" * (leaks._CHUNK - 20)
    path = tmp_path / "paste.txt"
    path.write_text(
        f"token={keys[0].text};\n{across}{keys[1].text}\n{'y' * 300}'{keys[2].text}' {keys[0].text}"
    )
    said = _report(str(path))
    assert said.count("is revoked now") == 3
    assert ApiKey.objects.filter(revoked_at=None).count() == 0


@pytest.mark.parametrize("paste", ["Authorization: Bearer {}", "  {}\n", "{},", "'{}'", "KEY={} # prod"])
def test_a_key_is_found_however_it_was_pasted(api: Api, paste: str) -> None:
    assert "is revoked now" in _report(paste.format(api.text))


def test_a_key_that_is_not_ours_harms_nobody(api: Api, tmp_path: Path) -> None:
    """The right id with another secret, and a key of another system."""
    other = KeyText("live", api.key.key_id, "0" * 43).text
    path = tmp_path / "paste.txt"
    path.write_text(f"{other} {KeyText.generate('live').text} {api.text[:-1]}")
    with pytest.raises(CommandError, match="No key of ours"):
        _report(str(path))
    assert api.get("/v2/deeds").status_code == 200


def test_only_what_came_since_is_told(api: Api, time_machine: Any) -> None:
    api.get("/v2/deeds")
    later = timezone.now() + dt.timedelta(minutes=5)
    said = _report(api.text, since=later)
    assert "No request since" in said
    assert "was revoked before" in _report(api.text)


def test_the_time_asked_for_is_told_in_utc(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("report_leak", api.text, "--since", "2026-11-24T08:00:00-08:00")
    assert "since 2026-11-24 16:00 UTC" in capsys.readouterr().out


def test_a_moment_without_a_zone_is_refused(api: Api) -> None:
    with pytest.raises(CommandError, match="with its zone"):
        call_command("report_leak", api.text, "--since", "2026-11-24T08:00:00")
    assert api.get("/v2/deeds").status_code == 200


def test_a_source_that_is_not_there_is_named(db: None) -> None:
    with pytest.raises(CommandError, match=r"paste\.txt can't be read"):
        _report("/nowhere/paste.txt")


def test_what_is_left_of_a_key_is_not_repeated(api: Api) -> None:
    cut = api.text[:-3]
    with pytest.raises(CommandError, match="can't be read") as refused:
        _report(f"Bearer {cut}")
    assert cut[-20:] not in str(refused.value)


def _log_requests(api: Api, *, every: int, of: int) -> None:
    """Rows of the last 29 days: each so many of the key, the others of fifty more partners."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO api_usage (at, id, partner_id, key_id, livemode, method, route, status, error_code,"
            " latency_ms, cost_units, deeds, deed_type, deed_id, bytes_in, bytes_out, address, request_id)"
            " SELECT now() - interval '29 days' * n / %(of)s, gen_random_uuid(),"
            " CASE WHEN n %% %(every)s = 0 THEN %(partner)s::uuid ELSE md5('p' || n %% 50)::uuid END,"
            " CASE WHEN n %% %(every)s = 0 THEN %(key)s::uuid ELSE md5('k' || n %% 50)::uuid END,"
            " true, 'GET', '/v2/deeds/{deed_id}', 200, '', 1, 1, 0, '', gen_random_uuid(), 0, 9,"
            " '203.0.113.9', 'req' FROM generate_series(1, %(of)s) AS n",
            {"every": every, "of": of, "partner": str(api.partner.pk), "key": str(api.key.pk)},
        )
        cursor.execute("ANALYZE api_usage")
