"""Deeds that were ordered, and deeds whose PDF is there."""

import datetime as dt

import pytest
from django.utils import timezone

from deeds.models import Deed
from tests.api import Api
from tests.conftest import MainApi
from tests.deeds.kept import Complete, Orders, run


@pytest.fixture
def place(api: Api, order: Orders) -> Complete:
    def make(order_id: str = "ORD-123") -> Deed:
        return Deed.objects.get(pk=api.post("/v2/deeds", order(order_id=order_id)).json()["id"])

    return make


@pytest.fixture
def complete(place: Complete, main_api: MainApi) -> Complete:
    def make(order_id: str = "ORD-123", days_ago: int = 0) -> Deed:
        deed = run(place(order_id))
        if days_ago:
            at = timezone.now() - dt.timedelta(days=days_ago)
            Deed.objects.filter(pk=deed.pk).update(completed_at=at, pdf_checked_at=at)
        return deed

    return make
