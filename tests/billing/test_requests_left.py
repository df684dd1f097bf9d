"""A request quota: as many requests are let in as it has left, and what did not count is given back."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.utils import timezone

from billing import requests_left, requests_quota
from billing.models import BillingPeriod
from billing.signals import quota_exceeded
from deeds import ordering
from keys.models import Partner
from tests.api import Api


@pytest.fixture
def api(api: Api) -> Api:
    Partner.objects.update(monthly_request_quota=5)
    requests_left.forget()
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


def test_more_that_is_granted_or_agreed_holds_at_once(api: Api) -> None:
    assert [api.get("/v2/deeds").status_code for _ in range(6)] == [200] * 5 + [402]
    BillingPeriod.objects.update(extra_requests=1)
    assert [api.get("/v2/deeds").status_code for _ in range(2)] == [200, 402]


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
