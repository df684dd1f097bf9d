"""A page of finance's that was opened before somebody else agreed, ended or granted undoes nothing."""

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from billing import contracts
from billing.models import BillingPeriod, Contract
from keys.models import AuditEntry, Partner
from tests.billing.test_admin import FINANCE, agreed, charged, contract_form, drafted
from tests.staff import STALE, hire, log_in, seen

DAY = dt.timedelta(days=1)


@pytest.fixture
def finance(db: None, quick_passwords: None) -> Client:
    return log_in(hire("fiona", "finance"))


@pytest.fixture
def today() -> dt.date:
    return timezone.now().date()


def _agree(partner: Partner, starts_on: dt.date, price: str) -> Contract:
    terms = {"model": "per_deed", "starts_on": starts_on, "base_fee": Decimal(0)}
    return contracts.agree(partner, terms, [("grant", 0, Decimal(price))], FINANCE)


def _version(partner: Partner, today: dt.date, price: str) -> dict[str, str]:
    return contract_form(partner, ("grant", "0", price), starts_on=str(today + 3 * DAY))


def _post(finance: Client, url: str, form: dict[str, Any]) -> str:
    """The page that is shown in the end."""
    answer = finance.post(url, form, follow=True)
    assert answer.status_code == 200
    return str(answer.content.decode())


def _refused(finance: Client, url: str, form: dict[str, Any]) -> None:
    before = AuditEntry.objects.count()
    assert STALE in _post(finance, url, form)
    assert AuditEntry.objects.count() == before


def test_prices_that_were_copied_before_a_change_do_not_bring_the_old_ones_back(
    finance: Client, acme: Partner, today: dt.date
) -> None:
    agreed(acme)
    url = f"/admin/billing/contract/add/?partner={acme.pk}"
    form = _version(acme, today, "12.50")
    opened = seen(finance, url)
    _agree(acme, today + 2 * DAY, "9.00")
    _refused(finance, url, form | {"seen": opened})
    assert acme.contracts.count() == 2
    assert STALE not in _post(finance, url, form | {"seen": seen(finance, url)})
    assert acme.contracts.count() == 3


def test_nor_does_one_revive_a_contract_that_was_ended(
    finance: Client, acme: Partner, today: dt.date
) -> None:
    contract = agreed(acme)
    url = f"/admin/billing/contract/add/?partner={acme.pk}"
    form = _version(acme, today, "12.50") | {"seen": seen(finance, url)}
    contracts.end(contract, today + DAY, FINANCE, reason="they left")
    _refused(finance, url, form)
    assert Contract.objects.in_force(acme.pk, today + 3 * DAY) is None


def test_a_copy_that_nothing_overtook_is_agreed(finance: Client, acme: Partner, today: dt.date) -> None:
    agreed(acme)
    url = f"/admin/billing/contract/add/?partner={acme.pk}"
    form = _version(acme, today, "11.00") | {"seen": seen(finance, url)}
    agreed(Partner.objects.create(name="Pacific Escrow"))
    assert STALE not in _post(finance, url, form)
    assert acme.contracts.count() == 2


def test_a_last_day_that_another_set_stays(finance: Client, acme: Partner, today: dt.date) -> None:
    contract = agreed(acme)
    url = f"/admin/billing/contract/{contract.pk}/end/"
    form = {"last_day": str(today + 30 * DAY), "reason": "his", "seen": seen(finance, url)}
    contracts.end(contract, today + 3 * DAY, FINANCE, reason="hers")
    _refused(finance, url, form)
    contract.refresh_from_db()
    assert contract.ends_on == today + 3 * DAY
    assert STALE not in _post(finance, url, form | {"seen": seen(finance, url)})


def test_a_version_that_was_ended_meanwhile_is_not_withdrawn(
    finance: Client, acme: Partner, today: dt.date
) -> None:
    coming = _agree(acme, today + 3 * DAY, "9.00")
    url = f"/admin/billing/contract/{coming.pk}/withdraw/"
    form = {"reason": "typo", "seen": seen(finance, url)}
    contracts.end(coming, today + 9 * DAY, FINANCE, reason="a trial")
    _refused(finance, url, form)
    coming.refresh_from_db()
    assert coming.withdrawn_at is None


def test_more_is_granted_once_from_two_pages(finance: Client, acme: Partner) -> None:
    charged(acme)
    period = BillingPeriod.objects.get()
    url = f"/admin/billing/billingperiod/{period.pk}/grant/"
    form = {"deeds": "10", "requests": "0", "budget": "0", "reason": "month-end", "seen": seen(finance, url)}
    assert "Granted" in _post(finance, url, form)
    _refused(finance, url, form)
    period.refresh_from_db()
    assert period.extra_deeds == 10


def test_orders_that_come_in_meanwhile_stop_no_grant(finance: Client, acme: Partner) -> None:
    charged(acme)
    url = f"/admin/billing/billingperiod/{BillingPeriod.objects.get().pk}/grant/"
    form = {"deeds": "10", "requests": "0", "budget": "0", "reason": "month-end", "seen": seen(finance, url)}
    charged(acme)
    assert "Granted" in _post(finance, url, form)


def test_nothing_is_granted_for_a_period_that_is_over(finance: Client, acme: Partner) -> None:
    charged(acme)
    period = BillingPeriod.objects.get()
    url = f"/admin/billing/billingperiod/{period.pk}/grant/"
    form = {"deeds": "10", "requests": "0", "budget": "0", "reason": "month-end", "seen": seen(finance, url)}
    agreed(acme)
    drafted(acme)
    assert "This period is over" in _post(finance, url, form)
    period.refresh_from_db()
    assert period.extra_deeds == 0
    assert not AuditEntry.objects.filter(action="quota.granted").exists()
