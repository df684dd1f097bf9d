"""A contract's own cost units: what its partner's requests cost from its first day on."""

import datetime as dt
import html
import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.test import Client
from django.utils import timezone

from billing import agreed_units, contracts, cost_units, ingest
from billing.models import ApiUsage, Contract, UsageDaily
from deeds.catalog import DEED_TYPES
from keys.models import Partner
from partner_api.ops.checks import refuse_insecure_start
from tests.api import Api
from tests.billing import books
from tests.billing.rows import a_row, line, log
from tests.billing.test_admin import contract_form

Logged = Callable[[], list[ApiUsage]]
Orders = Callable[..., dict[str, Any]]
OWN = {"grant": 12, "POST /v2/deeds/batch": 5}


def _today() -> dt.date:
    return timezone.now().date()


def test_it_works(
    transactional_db: None, api: Api, stranger: Api, logged: Logged, order: Orders, acme: Partner
) -> None:
    books.agree(acme, starts_on=_today(), cost_units=OWN)
    for client in (api, stranger):
        client.post("/v2/deeds", order())
    own, other = logged()
    assert (own.partner, own.cost_units) == (acme, 1 + 12)
    assert (other.partner, other.cost_units) == (stranger.partner, 1 + 10)
    everything = UsageDaily.objects.filter(partner=acme).order_by("-cost_units")
    assert everything[0].cost_units == 13


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"grant": "12"}, "The units of 'grant' must be a whole number"),
        ({"grnt": 12}, "There is no deed type 'grnt'"),
        ({"POST /v2/deed": 1}, "There is no request 'POST /v2/deed'"),
        ([], "Write cost units as"),
    ],
)
def test_a_setting_that_nothing_could_be_costed_by_is_refused_at_the_start(
    settings: Any, table: Any, problem: str
) -> None:
    settings.USAGE_COST_UNITS = table
    with pytest.raises(ImproperlyConfigured, match=f"E063 USAGE_COST_UNITS: {problem}"):
        refuse_insecure_start()
    settings.USAGE_COST_UNITS = OWN
    refuse_insecure_start()


def test_a_batch_of_several_types_costs_each(
    transactional_db: None, api: Api, logged: Logged, order: Orders, acme: Partner, settings: Any
) -> None:
    settings.USAGE_COST_UNITS = {"tax": 3, "grant": 99}
    books.agree(acme, starts_on=_today(), cost_units=OWN)
    bodies = [order(order_id="1"), order(order_id="2"), order("tax", order_id="3")]
    api.post("/v2/deeds/batch", {"orders": bodies})
    api.post("/v2/deeds/batch", {"orders": bodies})
    api.post("/v2/deeds/batch", {"orders": [order(order_id="4"), order(order_id="5")]})
    mixed, again, one_type = logged()
    # The tax deed costs what the setting says, because the contract does not name it.
    assert (mixed.deeds, mixed.deed_type, mixed.cost_units) == (3, "mixed", 5 + 12 + 12 + 3)
    assert (again.deeds, again.deed_type, again.cost_units) == (0, "", 5)
    assert (one_type.deed_type, one_type.cost_units) == ("grant", 5 + 12 + 12)


def test_what_is_free_stays_free(acme: Partner) -> None:
    books.agree(acme, starts_on=_today(), cost_units={"GET /v2/deeds": 7})
    log([a_row(partner=acme, status=status, cost_units=0) for status in (401, 429, 500)])
    log([a_row(partner=acme, status=422)])
    assert sorted(ApiUsage.objects.values_list("cost_units", flat=True)) == [0, 0, 0, 7]


def test_the_version_of_the_requests_day_counts(acme: Partner) -> None:
    start = _today() - dt.timedelta(days=9)
    books.agree(
        acme, starts_on=start, ends_on=_today() + dt.timedelta(days=5), cost_units={"GET /v2/deeds": 2}
    )
    books.agree(
        acme,
        starts_on=_today() + dt.timedelta(days=2),
        ends_on=_today() + dt.timedelta(days=3),
        cost_units={"GET /v2/deeds": 0},
    )
    withdrawn = books.agree(acme, starts_on=_today() + dt.timedelta(days=1), cost_units={"GET /v2/deeds": 9})
    contracts.withdraw(withdrawn, books.ACTOR, reason="typo")
    noon = dt.datetime.combine(_today(), dt.time(12), dt.UTC)
    days = (-10, -9, 0, 1, 2, 3, 4)
    log([a_row(partner=acme, at=noon + dt.timedelta(days=day)) for day in days])
    costs = list(ApiUsage.objects.order_by("at").values_list("cost_units", flat=True))
    assert costs == [1, 2, 2, 2, 0, 0, 1]


def test_what_was_stored_keeps_what_it_cost(acme: Partner) -> None:
    log([a_row(partner=acme)])
    books.agree(acme, starts_on=_today() - dt.timedelta(days=1), cost_units={"GET /v2/deeds": 50})
    assert ApiUsage.objects.get().cost_units == 1


def test_many_rows_and_partners_are_one_query(acme: Partner, django_assert_num_queries: Any) -> None:
    others = [Partner.objects.create(name=f"P{number}") for number in range(5)]
    for partner in (acme, *others):
        books.agree(partner, starts_on=_today(), cost_units=OWN)
    rows = [a_row(partner=partner, deeds=2, deed_type="grant") for partner in (acme, *others) * 3]
    names = [name for name, _ in ingest.FIELDS]
    with django_assert_num_queries(1):
        priced = agreed_units.apply([line(row) for row in rows], names)
    assert {json.loads(text)[10] for text in priced} == {25}


def test_what_is_no_row_is_passed_on(acme: Partner) -> None:
    books.agree(acme, starts_on=_today(), cost_units=OWN)
    names = [name for name, _ in ingest.FIELDS]
    odd = [b"{", b"[1]", b'"x"', b"\xff", line(a_row(partner=acme, at=1e300)), line(a_row(status="much"))]
    odd += [line(a_row(partner=acme, deeds=1, deed_type={"grant": "x"})), b"[" * 5000]
    assert agreed_units.apply(odd, names) == odd


def test_a_damaged_type_is_stored_without_what_postgres_refuses(acme: Partner) -> None:
    books.agree(acme, starts_on=_today(), cost_units=OWN)
    assert log([a_row(partner=acme, deeds=1, deed_type="gra\x00nt"), a_row(partner=acme, deeds=2)]) == 2
    assert set(ApiUsage.objects.values_list("deed_type", flat=True)) == {"grant", ""}


def test_a_row_of_any_size_is_stored(acme: Partner) -> None:
    books.agree(acme, starts_on=_today(), cost_units={"grant": cost_units.MOST})
    assert log([a_row(partner=acme, deeds=2**31 - 1, deed_type="grant")]) == 1
    assert ApiUsage.objects.get().cost_units == 2**31 - 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"grnt": 1}, "There is no deed type 'grnt'; did you mean 'grant'?"),
        (
            {"POST /v2/deeds/batches": 1},
            "no request 'POST /v2/deeds/batches'; did you mean 'POST /v2/deeds/batch'?",
        ),
        ({"/v2/deeds": 1}, "There is no request '/v2/deeds'"),
        ({"grant": -1}, "The units of 'grant' must be a whole number from 0 to 1,000,000."),
        ({"grant": 1.5}, "The units of 'grant'"),
        ({"grant": True}, "The units of 'grant'"),
        ({"grant": "12"}, "The units of 'grant'"),
        ({"grant": 1_000_001}, "The units of 'grant'"),
        ([1], "Write cost units as"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_agreed(
    acme: Partner, staff: Client, table: Any, message: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        books.agree(acme, starts_on=_today(), cost_units=table)
    assert message in " ".join(refused.value.messages)
    form = contract_form(acme, ("grant", "0", "1"), cost_units=json.dumps(table))
    page = staff.post("/admin/billing/contract/add/", form).content.decode()
    assert message.replace("'", "&#x27;") in page
    assert not Contract.objects.exists()


def test_a_contract_shows_its_units_and_a_change_copies_them(acme: Partner, staff: Client) -> None:
    form = contract_form(acme, ("grant", "0", "12.50"), cost_units='{"grant": 12}')
    assert staff.post("/admin/billing/contract/add/", form).status_code == 302
    contract = Contract.objects.get()
    assert contract.cost_units == {"grant": 12}
    assert contract.prices.get().unit_price == Decimal("12.5")
    shown = staff.get(f"/admin/billing/contract/{contract.pk}/change/").content.decode()
    copied = staff.get(f"/admin/billing/contract/add/?partner={acme.pk}").content.decode()
    assert "{&quot;grant&quot;: 12}" in copied
    assert '"grant": 12' in html.unescape(re.sub("<[^>]*>", "", shown))
    assert 'name="cost_units"' not in shown


def test_every_deed_type_can_have_units_and_every_route(acme: Partner) -> None:
    assert cost_units.problems_of(dict.fromkeys([*DEED_TYPES, "GET /v2/deeds/{deed_id}"], 1)) == []
    for name in ("POST /v1/webhooks/{system}", "POST /v1/deeds/{deed}"):
        assert cost_units.problems_of({name: 0}) == []
    assert cost_units.problems_of({"GET /admin/": 1}) != []
