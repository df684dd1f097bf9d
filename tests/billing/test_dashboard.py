"""The analytics dashboard for staff, and its export."""

import csv
import datetime as dt
import re
import xml.etree.ElementTree as ET
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from billing import charts
from keys.models import Partner
from tests.api import Api
from tests.billing import books
from tests.billing.rows import log, requests
from tests.staff import hire, log_in

PAGE = "/admin/billing/analytics/"


@pytest.fixture
def staff(db: None, quick_passwords: None) -> Client:
    user = hire("ann")
    user.user_permissions.add(Permission.objects.get(codename="view_analytics"))
    return log_in(user)


def _page(staff: Client, query: str = "") -> str:
    answer = staff.get(f"{PAGE}{query}")
    assert answer.status_code == 200
    return str(answer.content.decode())


def _rows(answer: Any) -> list[dict[str, str]]:
    text = b"".join(answer.streaming_content).decode()
    return list(csv.DictReader(text.splitlines()))


def test_it_works(staff: Client, api: Api, stranger: Api) -> None:
    log(
        requests(3, partner=api.partner, key=api.key, latency_ms=80.0),
        requests(2, partner=api.partner, key=api.key, status=429),
        requests(1, partner=stranger.partner, key=stranger.key, status=500),
        requests(4, partner=stranger.partner, key=stranger.key, status=202, deeds=1, deed_type="tax"),
    )
    page = _page(staff)
    for text in ("10", "3 (30.0%)", "Acme Title", "Pacific Escrow", "GET /v2/deeds", api.key.prefix):
        assert text in page
    tables = dict(re.findall(r"<h2[^>]*>\s*([\w -]+?)\s*</h2>(.*?)(?=<h2|$)", page, re.DOTALL))
    assert api.key.prefix in tables["Rate-limited keys"]
    assert stranger.key.prefix not in tables["Rate-limited keys"]
    assert stranger.key.prefix in tables["Failing keys"]
    assert api.key.prefix not in tables["Failing keys"]
    assert "Revenue" not in page


def test_it_is_drawn_without_anything_from_elsewhere(staff: Client, api: Api) -> None:
    log(requests(3, partner=api.partner, key=api.key))
    page = _page(staff)
    drawings = re.findall(r"<svg viewBox.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 4
    for drawing in drawings:
        ET.fromstring(drawing)  # noqa: S314 - our own text
        assert "http" not in drawing
    assert re.findall(r'(?:src|href)="(?:https?:)?//[^"]*', page) == []


def test_it_needs_its_permission(client: Client, quick_passwords: None, api: Api) -> None:
    assert client.get(PAGE).status_code == 302
    log_in(hire("bob"), client)
    assert client.get(PAGE).status_code == 403
    assert client.get(f"{PAGE}export.csv").status_code == 403
    assert "analytics" not in client.get("/admin/").content.decode().lower()


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("?range=24h", 1),
        ("?range=7d", 2),
        ("?range=30d", 3),
        ("?range=90d", 4),
        ("?range=12m", 5),
        ("?range=nonsense", 3),
        ("?from=2026-01-01&to=1999-01-01", 3),
        ("?from=yesterday", 3),
        ("?from=0001-01-01", 3),
        ("?to=9999-12-31", 3),
        ("?from=2001-01-01", 3),
        ("?to=2001-01-01", 0),
        ("?to=2000-01-01", 0),
    ],
)
def test_the_range_can_be_chosen(staff: Client, db: None, query: str, shown: int) -> None:
    now = dt.datetime.now(dt.UTC)
    for days in (0, 3, 20, 60, 200):
        log(requests(1, at=now - dt.timedelta(days=days)))
    answer = staff.get(f"{PAGE}{query}")
    assert answer.status_code == 200
    assert answer.context["cards"][0]["value"] == str(shown)


def test_days_of_ones_own_are_both_included(staff: Client, db: None) -> None:
    for day in (9, 10, 12, 13):
        log(requests(1, at=dt.datetime(2026, 11, day, 23, 30, tzinfo=dt.UTC)))
    answer = staff.get(f"{PAGE}?from=2026-11-10&to=2026-11-12")
    assert answer.context["cards"][0]["value"] == "2"


def test_one_partner_and_one_mode(staff: Client, api: Api, stranger: Api) -> None:
    test = Api.of(api.partner, environment="test")
    log(
        requests(1, partner=api.partner, key=api.key),
        requests(2, partner=api.partner, key=test.key),
        requests(4, partner=stranger.partner, key=stranger.key),
    )
    for query, count in (("", 7), ("mode=live", 5), ("mode=test", 2), (f"partner={api.partner.pk}", 3)):
        assert staff.get(f"{PAGE}?{query}").context["cards"][0]["value"] == str(count)
    one = _page(staff, f"?partner={api.partner.pk}&mode=test")
    assert stranger.key.prefix not in one
    assert staff.get(f"{PAGE}?partner=nonsense").context["cards"][0]["value"] == "7"


def test_without_usage_it_is_empty_and_whole(staff: Client, db: None) -> None:
    assert "No data" in _page(staff)


def test_its_queries_follow_neither_partners_nor_rows(staff: Client, db: None) -> None:
    def count() -> int:
        with CaptureQueriesContext(connection) as queries:
            _page(staff)
        assert not [one for one in queries if "api_usage" in one["sql"]]
        return len(queries)

    before = count()
    for number in range(12):
        api = Api.of(Partner.objects.create(name=f"Partner {number}"))
        log(requests(2, partner=api.partner, key=api.key))
    assert count() <= before + 2


def test_revenue_is_the_ledgers_in_each_currency(staff: Client, acme: Partner) -> None:
    other = Partner.objects.create(name="Pacific Escrow")
    first = dt.datetime.now(dt.UTC).date().replace(day=1)
    books.agree(acme, starts_on=first)
    books.agree(other, starts_on=first, rows=[("deed", 0, Decimal(1300))], currency="JPY")
    for partner in (acme, acme, other):
        books.charge(partner)
    cards = {card["title"]: card["value"] for card in staff.get(PAGE).context["cards"]}
    assert (cards["Revenue, USD"], cards["Revenue, JPY"]) == ("25.00", "1,300")


def test_a_day_on_which_more_was_given_back_than_charged_is_drawn_below_zero() -> None:
    days = [dt.datetime(2026, 11, day, tzinfo=dt.UTC) for day in (1, 2)]
    drawing = charts.bars("Revenue", days, [charts.Series("USD", "#000", [30.0, -12.5])])
    bars = re.findall(r'<rect x="[^"]*" y="([^"]*)" width="[^"]*" height="([^"]*)"[^>]*><title>', drawing)
    (above, high), (below, low) = [(float(y), float(height)) for y, height in bars]
    assert above + high == pytest.approx(below)
    assert high / low == pytest.approx(30 / 12.5, rel=0.01)
    assert below + low <= charts.HEIGHT
    assert "-12.5 USD" in drawing


def test_the_export_has_every_dimension(staff: Client, api: Api) -> None:
    log(
        requests(2, partner=api.partner, key=api.key, latency_ms=100.0),
        requests(1, status=401),
        requests(1, at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
    )
    answer = staff.get(f"{PAGE}export.csv")
    assert answer["Content-Type"].startswith("text/csv")
    assert answer.streaming
    refused, own = sorted(_rows(answer), key=lambda one: one["requests"])
    assert (refused["status"], refused["partner"], refused["key"]) == ("401", "", "")
    assert (own["partner"], own["key"], own["livemode"]) == ("Acme Title", api.key.prefix, "true")
    assert (own["requests"], own["errors"], own["cost_units"]) == ("2", "0", "2")
    assert float(own["latency_p95_ms"]) == pytest.approx(100, rel=0.05)


@pytest.mark.parametrize("query", ["", "?range=7d", "?range=90d", "?range=12m"])
def test_the_export_and_the_page_say_the_same(staff: Client, api: Api, query: str) -> None:
    now = dt.datetime.now(dt.UTC)
    at = [now - dt.timedelta(days=days, hours=hours) for days in range(5, 95) for hours in (0, 5, 11, 17)]
    log([row for moment in at for row in requests(1, at=moment)])
    shown = staff.get(f"{PAGE}{query}").context["cards"][0]["value"]
    told = sum(int(row["requests"]) for row in _rows(staff.get(f"{PAGE}export.csv{query}")))
    assert int(shown) == told > 0


def test_a_name_that_is_a_formula_stays_a_name(staff: Client, db: None) -> None:
    api = Api.of(Partner.objects.create(name='=HYPERLINK("http://evil","<b>x")'))
    log(requests(1, partner=api.partner, key=api.key))
    [row] = _rows(staff.get(f"{PAGE}export.csv"))
    assert row["partner"] == '\'=HYPERLINK("http://evil","<b>x")'
    assert "<b>x" not in _page(staff)


@pytest.mark.parametrize(
    ("value", "ceiling"), [(0, 1), (1, 1), (3, 3.2), (99, 100), (101, 120), (0.03, 0.032), (7e6, 8e6)]
)
def test_an_axis_ends_at_a_round_number(value: float, ceiling: float) -> None:
    assert charts._ceiling(value) == pytest.approx(ceiling)


@pytest.mark.parametrize(("value", "ceiling"), [(0, 4), (3, 4), (9, 12), (99, 100), (101, 120)])
def test_the_axis_of_a_count_has_whole_numbers_only(value: int, ceiling: float) -> None:
    assert charts._ceiling(value, is_count=True) == ceiling
    assert (ceiling / charts._TICKS).is_integer()
