"""Each completed deed is charged once, for good; what differs from that is found and named."""

import datetime as dt
import threading
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.core.exceptions import ValidationError
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.utils import timezone

from billing import contracts, ledger, reconciliation
from billing.ledger import DeedFacts
from billing.models import BillingPeriod, Contract, LedgerEntry
from deeds import fulfilment, tasks
from deeds.models import Deed
from deeds.signals import deed_settled
from keys import audit
from keys.models import AuditEntry, Partner
from tests.api import Api
from tests.conftest import MainApi

Orders = Callable[..., dict[str, Any]]
FINANCE = audit.Actor("staff", "finance")


def agreed(partner: Partner, *prices: tuple[str, int, str], **terms: Any) -> Contract:
    fields = {"model": "per_deed", "starts_on": timezone.now().date(), "base_fee": Decimal(0), **terms}
    return contracts.agree(partner, fields, [(item, after, Decimal(p)) for item, after, p in prices], FINANCE)


def facts(partner: Partner, **changes: Any) -> DeedFacts:
    known = {"deed_type": "grant", "livemode": True, "is_reissue": False, "completed_at": timezone.now()}
    return DeedFacts(**{"partner": partner, "deed_id": uuid.uuid4(), **known, **changes})


@pytest.fixture
def made(api: Api, order: Orders, main_api: MainApi) -> Callable[..., Deed]:
    def make(kind: str = "grant", **members: Any) -> Deed:
        deed_id = api.post("/v2/deeds", order(kind, **members)).json()["id"]
        tasks.serve(deed_id)
        return Deed.objects.get(pk=deed_id)

    return make


def test_it_works(api: Api, made: Callable[..., Deed]) -> None:
    contract = agreed(api.partner, ("grant", 0, "12.50"))
    deed = made()
    entry = LedgerEntry.objects.get()
    assert (entry.source_kind, entry.source_id, entry.kind) == ("deed", str(deed.pk), "deed")
    assert (entry.unit_price, entry.amount, entry.amount_minor) == (Decimal("12.5"), Decimal(1250), 1250)
    assert (entry.currency, entry.contract, entry.is_priced) == ("USD", contract, True)
    assert entry.occurred_at == deed.completed_at
    assert entry.sync_state == "pending"


def test_a_completion_that_is_undone_charges_nothing(api: Api, made: Callable[..., Deed]) -> None:
    agreed(api.partner, ("grant", 0, "12.50"))

    def fails(**_: Any) -> None:
        message = "a receiver that fails"
        raise RuntimeError(message)

    deed_settled.connect(fails)
    try:
        with pytest.raises(RuntimeError, match="a receiver that fails"):
            made()
    finally:
        deed_settled.disconnect(fails)
    assert not LedgerEntry.objects.exists()
    assert Deed.objects.get().status == "rendering"
    assert BillingPeriod.objects.get().deeds_reserved == 1


def test_a_deed_made_twice_is_charged_once(api: Api, made: Callable[..., Deed]) -> None:
    deed = made()
    fulfilment.serve(is_bulk=False)
    tasks.serve(str(deed.pk))
    assert LedgerEntry.objects.count() == 1
    with pytest.raises(IntegrityError, match="one_charge_per_source"), transaction.atomic():
        ledger.charge(facts(api.partner, deed_id=deed.pk))


def test_the_same_order_again_is_not_charged_again(
    api: Api, order: Orders, made: Callable[..., Deed]
) -> None:
    made()
    assert api.post("/v2/deeds", order()).status_code == 200
    assert LedgerEntry.objects.count() == 1


def test_a_deed_uses_up_the_quota_of_the_period_in_which_it_was_ordered(
    api: Api, order: Orders, main_api: MainApi
) -> None:
    agreed(api.partner, ("grant", 0, "12.50"))
    deed_id = api.post("/v2/deeds", order()).json()["id"]
    with time_machine.travel(BillingPeriod.objects.get().ends_at + dt.timedelta(seconds=1)):
        tasks.serve(deed_id)
        periods = BillingPeriod.objects.order_by("starts_at").values_list("deeds_used", "money_used")
        assert list(periods) == [(1, Decimal(1250)), (0, Decimal(0))]
        assert LedgerEntry.objects.get().period.starts_at > Deed.objects.get().created_at, "and is billed now"


def test_a_reissue_has_the_price_agreed_for_it(api: Api, made: Callable[..., Deed]) -> None:
    agreed(api.partner, ("grant", 0, "12.50"), ("reissue", 0, "2.00"))
    deed = made()
    made(reissue_of=str(deed.pk), execution_date="2026-12-01")
    assert list(LedgerEntry.objects.order_by("id").values_list("item", "amount_minor")) == [
        ("grant", 1250),
        ("reissue", 200),
    ]


def test_without_a_contract_the_fact_is_kept_and_priced_later(acme: Partner) -> None:
    entry = ledger.charge(facts(acme))
    assert entry is not None
    assert (entry.is_priced, entry.amount_minor, entry.sync_state) == (False, 0, "not_billable")
    assert ledger.price_unpriced(acme, FINANCE, is_reissue=lambda entry: False) == 0, "there is no price yet"
    agreed(acme, ("grant", 0, "12.50"))
    assert ledger.price_unpriced(acme, FINANCE, is_reissue=lambda entry: False) == 1
    assert ledger.price_unpriced(acme, FINANCE, is_reissue=lambda entry: False) == 0
    later = LedgerEntry.objects.latest("id")
    assert (later.source_kind, later.source_id, later.amount_minor) == ("pricing", str(entry.pk), 1250)
    entry.refresh_from_db()
    assert entry.amount_minor == 0
    assert AuditEntry.objects.filter(action="ledger.priced").count() == 1


def test_what_was_not_priced_gets_the_price_of_its_own_day(acme: Partner) -> None:
    assert ledger.charge(facts(acme))
    now = timezone.now()
    agreed(acme, ("grant", 0, "12.50"))
    agreed(acme, ("grant", 0, "20.00"), starts_on=now.date() + dt.timedelta(days=1))
    with time_machine.travel(now + dt.timedelta(days=1)):
        assert ledger.price_unpriced(acme, FINANCE, is_reissue=lambda entry: False) == 1
    assert LedgerEntry.objects.latest("id").amount_minor == 1250


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_entries SET amount = 1",
        "UPDATE ledger_entries SET occurred_at = now() - interval '1 day'",
        "UPDATE ledger_entries SET synced_at = now(), quantity = 2",
        "DELETE FROM ledger_entries",
        "UPDATE contracts SET base_fee = 1",
        "DELETE FROM contracts",
        "UPDATE contract_prices SET unit_price = 1",
    ],
)
def test_the_database_refuses_changes(acme: Partner, statement: str) -> None:
    agreed(acme, ("grant", 0, "12.50"))
    ledger.charge(facts(acme))
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        connection.cursor().execute(statement)
    assert LedgerEntry.objects.get().amount_minor == 1250


def test_what_stripe_answered_may_be_noted(acme: Partner) -> None:
    ledger.charge(facts(acme))
    changed = LedgerEntry.objects.update(
        sync_state="accepted", synced_at=timezone.now(), stripe_identifier="x", sync_attempts=1, sync_error=""
    )
    assert changed == 1


@pytest.mark.parametrize(
    ("fields", "constraint"),
    [
        ({"quantity": -1}, "ledger_quantity_is_sane"),
        ({"quantity": 0}, "ledger_quantity_is_sane"),
        ({"quantity": 10**11}, "ledger_quantity_is_sane"),
        ({"amount": Decimal(10**14)}, "ledger_amount_is_sane"),
        ({"amount": Decimal(-1)}, "ledger_sign_fits_its_kind"),
        ({"kind": "credit", "reason": "x", "author": "y"}, "ledger_sign_fits_its_kind"),
        ({"kind": "adjustment"}, "ledger_correction_says_why_and_who"),
        ({"kind": "gift"}, "ledger_kind_is_known"),
        ({"unit_price": Decimal(-1)}, "ledger_price_is_not_negative"),
    ],
)
def test_an_entry_that_cannot_be_is_refused(acme: Partner, fields: dict[str, Any], constraint: str) -> None:
    made = ledger.charge(facts(acme))
    assert made is not None
    row = {"partner": acme, "period": made.period, "kind": "deed", "source_kind": "deed", "source_id": "x"}
    row |= {"amount": Decimal(1), "amount_minor": 1, "currency": "USD"}
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        LedgerEntry.objects.create(**(row | fields))


@pytest.mark.parametrize(
    "column", ["deeds_used", "deeds_reserved", "requests_used", "money_used", "extra_deeds"]
)
def test_a_count_below_nothing_is_refused(acme: Partner, column: str) -> None:
    ledger.charge(facts(acme))
    with pytest.raises(IntegrityError, match="period_counts_are_not_negative"), transaction.atomic():
        BillingPeriod.objects.update(**{column: -1})
    with pytest.raises(DatabaseError, match=r"out of range|overflow"), transaction.atomic():
        connection.cursor().execute(f"UPDATE billing_periods SET {column} = 1e40")  # noqa: S608 - a parameter


def test_a_correction_says_who_and_why(acme: Partner) -> None:
    entry = ledger.correct(acme, -300, reason="goodwill", actor=FINANCE, source_id="form-1")
    again = ledger.correct(acme, -300, reason="goodwill", actor=FINANCE, source_id="form-1")
    assert again == entry
    assert (entry.kind, entry.amount_minor, entry.reason, entry.author) == (
        "credit",
        -300,
        "goodwill",
        "finance",
    )
    noted = AuditEntry.objects.get()
    assert (noted.action, noted.actor, noted.reason) == ("ledger.credit", "finance", "goodwill")
    with pytest.raises(ValueError, match="nothing"):
        ledger.correct(acme, 0, reason="x", actor=FINANCE, source_id="form-2")


@pytest.mark.django_db(transaction=True)
def test_two_clicks_at_once_are_one_correction(acme: Partner) -> None:
    made: list[LedgerEntry] = []

    def click() -> None:
        try:
            made.append(ledger.correct(acme, -300, reason="goodwill", actor=FINANCE, source_id="form-1"))
        finally:
            connection.close()

    threads = [threading.Thread(target=click) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({entry.pk for entry in made}) == LedgerEntry.objects.count() == 1
    assert len(made) == 4


def test_a_change_of_the_past_is_refused(acme: Partner) -> None:
    today = timezone.now().date()
    agreed(acme, ("grant", 0, "10.00"), starts_on=today - dt.timedelta(days=5))
    with pytest.raises(ValidationError, match="today or later"):
        agreed(acme, ("grant", 0, "9.00"), starts_on=today - dt.timedelta(days=1))
    agreed(acme, ("grant", 0, "9.00"), starts_on=today)
    with pytest.raises(ValidationError, match="same day"):
        agreed(acme, ("grant", 0, "8.00"), starts_on=today)
    assert acme.contracts.count() == 2


def test_a_version_that_has_not_started_can_be_withdrawn(acme: Partner) -> None:
    today = timezone.now().date()
    first = agreed(acme, ("grant", 0, "10.00"))
    later = agreed(acme, ("grant", 0, "9.00"), starts_on=today + dt.timedelta(days=5))
    contracts.withdraw(later, FINANCE, reason="typo")
    assert Contract.objects.in_force(acme.pk, today + dt.timedelta(days=6)) == first
    again = agreed(acme, ("grant", 0, "8.00"), starts_on=today + dt.timedelta(days=5))
    assert again.version == 3
    with pytest.raises(ValidationError, match="not started"):
        contracts.withdraw(first, FINANCE, reason="no")


@pytest.mark.parametrize(
    ("model", "fee", "rows", "message"),
    [
        ("flat", "0", [], "base fee"),
        ("flat", "5", [("grant", 0, "1")], "no prices"),
        ("per_deed", "0", [], "a price for at least"),
        ("per_deed", "0", [("grant", 5, "1")], "must start after 0"),
        ("hybrid", "0", [("grant", 0, "1")], "base fee"),
        ("per_request", "0", [("grant", 0, "1")], "1,000 requests"),
        ("per_deed", "0", [("grant", 0, "-1")], "out of bounds"),
        ("per_deed", "0", [("Grant", 0, "45")], "There is no item 'Grant'; .*grant"),
    ],
)
def test_a_contract_that_makes_no_sense_is_refused(
    acme: Partner, model: str, fee: str, rows: list[tuple[str, int, str]], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        agreed(acme, *rows, model=model, base_fee=Decimal(fee))
    assert not Contract.objects.exists()


# --- reconciliation ------------------------------------------------------------------------------


def variances(partner: Partner | None = None) -> list[reconciliation.Variance]:
    now = timezone.now()
    return reconciliation.find_variances(now - dt.timedelta(days=2), now + dt.timedelta(days=2), partner)


def forged(entry: LedgerEntry, **fields: Any) -> LedgerEntry:
    """Another row like it, as a bug would write it."""
    row = {field.attname: getattr(entry, field.attname) for field in LedgerEntry._meta.concrete_fields}
    return LedgerEntry.objects.create(**(row | {"id": uuid.uuid4()} | fields))


def test_books_that_agree_have_no_variance(api: Api, made: Callable[..., Deed]) -> None:
    agreed(api.partner, ("grant", 0, "10.00"), ("grant", 1, "8.00"))
    made(order_id="A")
    made(order_id="B")
    made(order_id="sandbox-400")
    assert variances() == []


def test_a_change_of_contract_in_the_middle_of_the_day_is_no_variance(
    api: Api, made: Callable[..., Deed]
) -> None:
    agreed(api.partner, ("grant", 0, "10.00"), starts_on=timezone.now().date() - dt.timedelta(days=3))
    made(order_id="A")
    agreed(api.partner, ("grant", 0, "12.00"))
    made(order_id="B")
    assert sorted(entry.amount_minor for entry in LedgerEntry.objects.all()) == [1000, 1200]
    assert variances() == []


def test_a_missing_charge_is_found_and_made_good(
    api: Api, made: Callable[..., Deed], monkeypatch: Any
) -> None:
    agreed(api.partner, ("grant", 0, "10.00"))
    with monkeypatch.context() as patched:
        patched.setattr("billing.ledger.charge", lambda deed: None)
        deed = made()
    (found,) = variances()
    assert (found.kind, found.subject, found.partner_id) == ("missing_charge", str(deed.pk), api.partner.pk)
    assert "missing_charge" in reconciliation.SAFE
    assert reconciliation.repair(found, FINANCE)
    assert not reconciliation.repair(found, FINANCE)
    assert variances() == []
    assert LedgerEntry.objects.get().amount_minor == 1000


def test_a_double_charge_is_found_and_credited(api: Api, made: Callable[..., Deed]) -> None:
    agreed(api.partner, ("grant", 0, "10.00"))
    deed = made()
    double = forged(LedgerEntry.objects.get(), source_id=str(deed.pk).upper())
    (found,) = variances()
    assert (found.kind, found.subject) == ("double_charge", str(double.pk))
    assert "double_charge" not in reconciliation.SAFE
    assert reconciliation.repair(found, FINANCE)
    assert variances() == []
    assert LedgerEntry.objects.get(kind="credit").amount_minor == -1000


def test_a_charge_without_a_deed_is_found_and_credited(
    api: Api, stranger: Api, made: Callable[..., Deed]
) -> None:
    agreed(api.partner, ("grant", 0, "10.00"))
    made()
    orphan = forged(LedgerEntry.objects.get(), source_id=str(uuid.uuid4()))
    (found,) = variances(api.partner)
    assert (found.kind, found.subject) == ("orphan_charge", str(orphan.pk))
    assert variances(stranger.partner) == []
    assert reconciliation.repair(found, FINANCE)
    assert variances() == []


def test_a_test_deed_that_was_charged_is_an_orphan(acme: Partner, order: Orders, main_api: MainApi) -> None:
    deed_id = Api.of(acme, environment="test").post("/v2/deeds", order()).json()["id"]
    tasks.serve(deed_id)
    ledger.charge(facts(acme, deed_id=uuid.UUID(deed_id)))
    assert [found.kind for found in variances()] == ["orphan_charge"]


def test_another_price_than_agreed_is_found_and_corrected(api: Api, made: Callable[..., Deed]) -> None:
    agreed(api.partner, ("grant", 0, "10.00"))
    deed = made()
    honest = LedgerEntry.objects.get()
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE ledger_entries DISABLE TRIGGER ledger_entries_are_kept")
        cursor.execute("UPDATE ledger_entries SET unit_price = 9, amount = 900, amount_minor = 900")
        cursor.execute("ALTER TABLE ledger_entries ENABLE TRIGGER ledger_entries_are_kept")
    (found,) = variances()
    assert (found.kind, found.subject) == ("price_mismatch", str(honest.pk))
    assert reconciliation.repair(found, FINANCE)
    assert LedgerEntry.objects.exclude(source_id=str(deed.pk)).get().amount_minor == 100
    assert variances() == []


def test_what_has_a_price_by_now_is_found_and_priced(api: Api, made: Callable[..., Deed]) -> None:
    made()
    assert variances() == [], "nobody agreed on a price"
    agreed(api.partner, ("grant", 0, "10.00"))
    (found,) = variances()
    assert found.kind == "price_mismatch"
    assert reconciliation.repair(found, FINANCE)
    assert variances() == []


def test_what_was_made_before_its_contract_is_priced_as_what_it_is(
    api: Api, made: Callable[..., Deed]
) -> None:
    """The general price, and that of reissues: an entry without a contract names neither."""
    first = made()
    made("quitclaim", order_id="B")
    made(reissue_of=str(first.pk), execution_date="2026-12-01")
    agreed(api.partner, ("deed", 0, "10.00"), ("reissue", 0, "2.00"))
    found = variances()
    assert [one.kind for one in found] == ["price_mismatch"] * 3
    assert reconciliation.repair(found[0], FINANCE)
    later = LedgerEntry.objects.filter(source_kind="pricing").order_by("id")
    assert list(later.values_list("item", "amount_minor")) == [
        ("deed", 1000),
        ("deed", 1000),
        ("reissue", 200),
    ]
    assert variances() == []
    assert not reconciliation.repair(found[1], FINANCE), "all were priced at once"


def test_what_was_made_before_its_contract_uses_up_no_tier(api: Api, made: Callable[..., Deed]) -> None:
    made(order_id="A")
    agreed(api.partner, ("grant", 0, "10.00"), ("grant", 1, "8.00"))
    made(order_id="B")
    assert LedgerEntry.objects.latest("id").amount_minor == 1000
    assert reconciliation.repair(variances()[0], FINANCE)
    assert LedgerEntry.objects.latest("id").amount_minor == 800


def test_tiers_start_with_a_period(acme: Partner) -> None:
    """Stripe counts them anew for each version, and we for each period: only so is it the same."""
    tiered = (("grant", 0, "10.00"), ("grant", 5, "8.00"))
    with time_machine.travel(dt.datetime(2027, 1, 10, 12, tzinfo=dt.UTC)):
        agreed(acme, *tiered)
        ledger.charge(facts(acme))
        with pytest.raises(ValidationError, match="take 2027-02-01"):
            agreed(acme, *tiered, starts_on=dt.date(2027, 1, 20))
        with pytest.raises(ValidationError, match="take 2027-04-01"):
            agreed(acme, *tiered, starts_on=dt.date(2027, 3, 15), anchor_day=15)
        agreed(acme, ("grant", 0, "9.00"), starts_on=dt.date(2027, 1, 20))
        agreed(acme, *tiered, starts_on=dt.date(2027, 2, 1), anchor_day=15)
        agreed(acme, *tiered, starts_on=dt.date(2027, 2, 15), anchor_day=15)
    assert acme.contracts.count() == 4


def test_a_first_contract_with_tiers_needs_periods_of_its_own(acme: Partner) -> None:
    tiered = (("grant", 0, "10.00"), ("grant", 5, "8.00"))
    with time_machine.travel(dt.datetime(2027, 1, 10, 12, tzinfo=dt.UTC)):
        ledger.charge(facts(acme))
        with pytest.raises(ValidationError, match="first day of a period"):
            agreed(acme, *tiered, anchor_day=15)
        agreed(acme, *tiered)


def test_a_finder_of_another_app_is_asked_too(acme: Partner) -> None:
    odd = reconciliation.Variance("unheard_of", acme.pk, timezone.now().date(), "x", "y")

    def finder(*_: Any) -> list[reconciliation.Variance]:
        return [odd]

    reconciliation.register_finder(finder)
    try:
        assert variances() == [odd]
        assert not reconciliation.is_repairable(odd)
        assert not reconciliation.repair(odd, FINANCE)
    finally:
        reconciliation._finders.remove(finder)


def test_yesterday_is_not_today(api: Api, made: Callable[..., Deed], monkeypatch: Any) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("billing.ledger.charge", lambda deed: None)
        made()
    with time_machine.travel(timezone.now() + dt.timedelta(days=10)):
        assert variances() == []
