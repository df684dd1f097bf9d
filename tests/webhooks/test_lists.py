"""What filters of lists cost: an index finds few among many."""

from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from tests.api import Api
from tests.webhooks.conftest import Register
from webhooks.models import Delivery, Event


@pytest.mark.parametrize(
    ("path", "table"),
    [
        ("/v2/webhook-deliveries?status=failed", "webhook_deliveries"),
        ("/v2/events?type=key.rotated", "webhook_events"),
    ],
)
def test_a_lists_filter_costs_no_more_the_more_there_is_beside(
    api: Api, register: Register, path: str, table: str
) -> None:
    endpoint = register("https://a.example.com/")
    kinds = ["key.rotated", *["key.revoked"] * 3000]
    events = Event.objects.bulk_create(
        Event(type=kind, partner=api.partner, livemode=True, data={}) for kind in kinds
    )
    Delivery.objects.bulk_create(
        Delivery(
            endpoint=endpoint,
            event=event,
            partner=api.partner,
            livemode=True,
            status="failed" if event.type == "key.rotated" else "succeeded",
            settled_at=timezone.now(),
        )
        for event in events
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE webhook_deliveries, webhook_events")
        before = _rows_read(cursor, table)
        assert len(api.get(path).json()["data"]) == 1
        assert _rows_read(cursor, table) - before < 20


def _rows_read(cursor: Any, table: str) -> int:
    """By this transaction."""
    cursor.execute(
        "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = %s", [table]
    )
    return int(cursor.fetchone()[0])
