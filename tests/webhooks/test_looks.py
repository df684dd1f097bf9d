"""Staff are told of orders that were accepted and are not made."""

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.utils import timezone
from prometheus_client.core import Metric

from keys.models import Partner
from partner_api.ops import watching
from partner_api.ops.models import Incident
from tests.webhooks.conftest import Sources
from tests.webhooks.inbound_calls import FIRST, post, send, sign
from webhooks import looks, tasks
from webhooks.models import InboundEvent

pytestmark = pytest.mark.usefixtures("hinted", "clock")


def _figures(families: Iterator[Metric]) -> dict[str, float]:
    return {
        sample.name.removeprefix("partner_api_webhook_inbound_"): sample.value
        for family in families
        for sample in family.samples
    }


def _told() -> list[str]:
    watching.watch()
    return list(
        Incident.objects.filter(name="inbound_needs_attention", ended_at=None)
        .order_by("pk")
        .values_list("summary", flat=True)
    )


def test_it_works(source: Sources) -> None:
    made = source()
    send()
    tasks.process()
    assert _told() == []
    send({**FIRST, "deed_type": "lease"})
    tasks.process()
    [said] = _told()
    assert str(made.pk) in said
    assert "set aside on 2026-11-24" in said
    assert "ALICE" not in said


def test_each_day_with_new_ones_is_told_and_none_for_ever(source: Sources, clock: Any) -> None:
    source()
    for day in range(2):
        body = json.dumps({**FIRST, "order_id": f"SP-{day}", "deed_type": "lease"}).encode()
        assert post(body, sign(body, at=timezone.now())).status_code == 202
        tasks.process()
        assert len(_told()) == 1 + day
        clock.shift(dt.timedelta(days=1))
    clock.shift(dt.timedelta(days=5, hours=1))
    assert len(_told()) == 1
    clock.shift(dt.timedelta(days=1))
    assert _told() == []


def test_what_is_replayed_is_over(source: Sources) -> None:
    source()
    send({**FIRST, "deed_type": "lease"})
    tasks.process()
    assert len(_told()) == 1
    InboundEvent.objects.get().replay(corrected_body="{}")
    assert _told() == []


def test_what_waits_for_an_hour_is_told_with_its_reason(source: Sources, clock: Any, acme: Partner) -> None:
    source()
    Partner.objects.update(monthly_deed_quota=0)
    send()
    tasks.process()
    assert _told() == []
    clock.shift(dt.timedelta(hours=1))
    [said] = _told()
    assert "more than an hour (quota_exceeded)" in said


def test_figures_of_what_is_not_made(source: Sources, clock: Any) -> None:
    source()
    assert _figures(looks.not_made()) == {"needs_attention": 0, "oldest_waiting_seconds": 0}
    send({**FIRST, "deed_type": "lease"})
    tasks.process()
    send()
    clock.shift(dt.timedelta(seconds=90))
    assert _figures(looks.not_made()) == {"needs_attention": 1, "oldest_waiting_seconds": 90}
