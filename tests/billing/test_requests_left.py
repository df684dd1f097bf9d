"""A request quota: as many requests are let in as it has left, and what did not count is given back."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from django_redis import get_redis_connection

from billing import requests_left, requests_quota
from billing.models import BillingPeriod
from billing.signals import quota_exceeded
from deeds import ordering
from keys.models import Partner
from tests.api import Api


@pytest.fixture
def api(api: Api) -> Api:
    Partner.objects.update(monthly_request_quota=5)
    return Api.of(Partner.objects.get(pk=api.partner.pk))


@pytest.fixture
def told() -> Iterator[list[tuple[str, Partner]]]:
    heard: list[tuple[str, Partner]] = []

    def receiver(quota: str, partner: Partner, **_: Any) -> None:
        heard.append((quota, partner))

    quota_exceeded.connect(receiver)
    yield heard
    quota_exceeded.disconnect(receiver)


def test_it_works(api: Api, told: list[tuple[str, Partner]]) -> None:
    """None of these is in the log yet, by which the period's row counts."""
    assert [api.get("/v2/deeds").status_code for _ in range(7)] == [200] * 5 + [402] * 2
    assert not BillingPeriod.objects.exclude(requests_used=0).exists()
    refused = api.get("/v2/deeds").json()
    assert (refused["code"], refused["quota"]) == ("quota_exceeded", "requests")
    assert (refused["limit"], refused["used"]) == (5, 5)
    assert told == [("requests", api.partner)], "once, though three were refused"
    assert api.get("/v2/billing").status_code == 200
    assert Api.of(api.partner, environment="test").get("/v2/deeds").status_code == 200


def test_what_does_not_count_is_given_back(api: Api) -> None:
    narrow = Api.of(api.partner, scopes=["deed:read"])
    assert {narrow.post("/v2/deeds", {}).status_code for _ in range(7)} == {403}
    assert [api.get("/v2/deeds").status_code for _ in range(6)] == [200] * 5 + [402]


def test_a_request_that_fails_is_given_back(
    api: Api, order: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(ordering, "place", crash)
    assert {api.post("/v2/deeds", order()).status_code for _ in range(7)} == {500}
    assert [api.get("/v2/deeds").status_code for _ in range(6)] == [200] * 5 + [402]


def test_more_that_is_granted_holds_for_the_next_that_looks(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests_left, "_FRESH_SECONDS", 0.0)
    assert [api.get("/v2/deeds").status_code for _ in range(6)] == [200] * 5 + [402]
    BillingPeriod.objects.update(extra_requests=1)
    assert [api.get("/v2/deeds").status_code for _ in range(2)] == [200, 402]


def test_a_partner_that_goes_on_calling_costs_the_database_little(
    api: Api,
    monkeypatch: pytest.MonkeyPatch,
    nothing_is_due: None,
    django_assert_num_queries: Any,
) -> None:
    monkeypatch.setattr(requests_left, "_FRESH_SECONDS", 600.0)
    assert [api.get("/v2/deeds").status_code for _ in range(6)] == [200] * 5 + [402]
    with django_assert_num_queries(0):
        assert [api.get("/v2/deeds").status_code for _ in range(3)] == [402] * 3


def test_what_a_partner_needs_to_see_why_is_answered_to_head_as_well(api: Api) -> None:
    assert [api.get("/v2/deeds").status_code for _ in range(6)] == [200] * 5 + [402]
    client = Client(raise_request_exception=False)
    for path, status in (("/v2/usage", 200), ("/v2/billing", 200), ("/v2/deeds", 402)):
        assert client.head(path, headers={"Authorization": f"Bearer {api.text}"}).status_code == status, path


def test_a_count_that_begins_anew_begins_with_the_row_as_it_is(api: Api, settings: Any) -> None:
    settings.REQUEST_QUOTA_SECONDS = 600.0
    assert api.get("/v2/deeds").status_code == 200
    requests_quota.count({(api.partner.pk, timezone.now()): 3})
    get_redis_connection("limiter").flushdb()
    assert [api.get("/v2/deeds").status_code for _ in range(3)] == [200, 200, 402]


def test_the_count_begins_with_what_the_period_has_used(api: Api) -> None:
    requests_quota.count({(api.partner.pk, timezone.now()): 3})
    assert [api.get("/v2/deeds").status_code for _ in range(3)] == [200, 200, 402]


def test_without_redis_the_row_alone_decides(
    api: Api, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REQUEST_QUOTA_SECONDS = 0.0
    monkeypatch.setattr(requests_left, "_count", lambda room: [])
    assert [api.get("/v2/deeds").status_code for _ in range(6)] == [200] * 6
    requests_quota.count({(api.partner.pk, timezone.now()): 5})
    assert api.get("/v2/deeds").status_code == 402
