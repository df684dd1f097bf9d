"""What came in is kept encrypted, byte for byte, for a while; the event itself is known for good."""

import datetime as dt
import importlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.apps import apps
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from deeds.models import Deed
from keys.models import Partner
from tests.webhooks.inbound_calls import FIRST, post, send, sign
from webhooks import retention, shadow, tasks
from webhooks.models import InboundEvent, Source

Sources = Callable[..., Source]


pytestmark = pytest.mark.usefixtures("hinted", "clock")


def _raw(column: str = "body") -> list[Any]:
    """As it stands in the database."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {column} FROM webhook_inbound_events ORDER BY id")  # noqa: S608 - ours
        return [row[0] if isinstance(row[0], str | None) else bytes(row[0]) for row in cursor.fetchall()]


@pytest.mark.parametrize(
    "body",
    [json.dumps(FIRST, indent=1).encode(), b"", b"{", bytes(range(256)), b"\r\n \x00gAAAAA", b"x" * 900_000],
)
def test_a_body_comes_back_byte_for_byte_and_is_not_readable(source: Sources, body: bytes) -> None:
    source()
    assert post(body, sign(body)).status_code == 202
    assert InboundEvent.objects.get().body == body
    [kept] = _raw()
    assert kept != body
    assert body == b"" or body not in kept
    assert kept.startswith(b"gAAAA")


def test_no_name_stands_in_the_row(source: Sources) -> None:
    source()
    send({**FIRST, "deed_type": "lease"})
    tasks.process()
    event = InboundEvent.objects.get()
    assert event.replay(corrected_body=json.dumps(FIRST))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT webhook_inbound_events::text, encode(body, 'escape') FROM webhook_inbound_events"
        )
        text = repr(cursor.fetchall())
    assert "ALICE" not in text
    assert "414c494345" not in text.lower(), "nor in hex"
    event.refresh_from_db()
    assert json.loads(event.corrected_body) == FIRST
    tasks.process()
    assert Deed.objects.get().order["grantors"][0]["name"] == "ALICE SMITH"


def test_a_rotated_key_covers_them(source: Sources, settings: Any) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    settings.FIELD_ENCRYPTION_KEYS = [old]
    source()
    send({**FIRST, "deed_type": "lease"})
    tasks.process()
    body = InboundEvent.objects.get().body
    InboundEvent.objects.get().replay(corrected_body="{}")
    settings.FIELD_ENCRYPTION_KEYS = [new, old]
    call_command("rotate_secrets")
    settings.FIELD_ENCRYPTION_KEYS = [new]
    event = InboundEvent.objects.get()
    assert (event.body, event.corrected_body) == (body, "{}")
    assert send({**FIRST, "order_id": "SP-2"}).status_code == 202, "signing secrets are rotated too"


def test_a_row_that_the_version_before_wrote_during_the_rollout_is_an_order(source: Sources) -> None:
    source()
    send()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE webhook_inbound_events SET body = %s", [json.dumps(FIRST).encode()])
    tasks.process()
    assert Deed.objects.get().order_id == "SP-1"
    call_command("rotate_secrets")
    assert b"ALICE" not in _raw()[0]
    assert json.loads(InboundEvent.objects.get().body or b"") == FIRST


def test_rows_of_the_version_before_are_encrypted_once_and_can_go_back(source: Sources) -> None:
    made = source()
    bodies = [b'{"a": 1}', b"", b"\xff\x00", b"gAAAA no token"]
    for number, body in enumerate(bodies):
        InboundEvent.objects.create(
            source=made, identity=str(number), body=b"", headers={}, request_id="r", corrected_body=""
        )
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE webhook_inbound_events SET body = %s WHERE identity = %s", [body, str(number)]
            )
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE webhook_inbound_events SET corrected_body = %s WHERE identity = '1'", ['{"é": 2}']
        )
    emptied = InboundEvent.objects.create(source=made, identity="x", headers={}, request_id="r")
    migration = importlib.import_module("webhooks.migrations.0002_inbound_bodies_encrypted")
    with connection.schema_editor() as editor:
        migration.encrypt_all(apps, editor)
        once = (_raw(), _raw("corrected_body"))
        migration.encrypt_all(apps, editor)
        assert (_raw(), _raw("corrected_body")) == once
    events = InboundEvent.objects.exclude(pk=emptied.pk).order_by("identity")
    assert [event.body for event in events] == bodies
    assert [event.corrected_body for event in events] == ["", '{"é": 2}', "", ""]
    assert not set(bodies) & set(once[0])
    with connection.schema_editor() as editor:
        migration.decrypt_all(apps, editor)
    assert _raw() == [*bodies, None]


def test_a_body_is_emptied_and_the_event_is_still_known(source: Sources, clock: Any, settings: Any) -> None:
    settings.WEBHOOKS_INBOUND_BODIES_KEPT_DAYS = 90
    source()
    first = send(X_Webhook_Id="evt-1")
    tasks.process()
    clock.shift(dt.timedelta(days=89))
    tasks.forget()
    assert InboundEvent.objects.get().body is not None
    clock.shift(dt.timedelta(days=2))
    for _ in range(2):
        tasks.forget()
    event = InboundEvent.objects.get()
    assert (event.body, event.corrected_body, event.errors) == (None, "", [])
    assert (event.status, event.identity, event.deed) == ("processed", "id:evt-1", Deed.objects.get())
    body = json.dumps(FIRST).encode()
    again = post(body, sign(body, at=timezone.now()) | {"X-Webhook-Id": "evt-1"})
    assert (again.status_code, again.json()) == (200, first.json())
    tasks.process()
    assert (InboundEvent.objects.count(), Deed.objects.count()) == (1, 1)


def test_what_is_not_settled_keeps_its_body(source: Sources, clock: Any, acme: Partner) -> None:
    source()
    send()
    clock.shift(dt.timedelta(days=1000))
    tasks.forget()
    tasks.process()
    assert Deed.objects.count() == 1
    assert InboundEvent.objects.get().status == "processed"


def test_with_zero_days_bodies_stay(source: Sources, clock: Any, settings: Any) -> None:
    settings.WEBHOOKS_INBOUND_BODIES_KEPT_DAYS = 0
    source()
    send()
    tasks.process()
    clock.shift(dt.timedelta(days=1000))
    tasks.forget()
    assert InboundEvent.objects.get().body == json.dumps(FIRST).encode()


def test_many_bodies_are_emptied_in_batches(source: Sources, clock: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    source()
    for number in range(5):
        send({**FIRST, "order_id": f"SP-{number}"})
    tasks.process()
    clock.shift(dt.timedelta(days=91))
    tasks.forget()
    assert _raw() == [None] * 5


def test_an_emptied_event_is_neither_corrected_nor_replayed(
    source: Sources, staff: Client, settings: Any
) -> None:
    settings.WEBHOOKS_INBOUND_BODIES_KEPT_DAYS = 1
    source("qualia")
    InboundEvent.objects.create(
        source=Source.objects.get(),
        identity="1",
        body=b"[]",
        headers={},
        request_id="r",
        status="needs_attention",
        reason_code="validation_error",
        reason="It is a list.",
        settled_at=timezone.now() - dt.timedelta(days=2),
    )
    tasks.forget()
    event = InboundEvent.objects.get()
    assert (event.status, event.reason_code, event.body) == ("needs_attention", "validation_error", None)
    assert event.reason == "", "it may quote what came"
    page = staff.get(f"/admin/webhooks/inboundevent/{event.pk}/change/").content.decode()
    assert "Removed after its retention." in page
    for act in ("correct", "shadow"):
        assert f"/{act}/" not in page
        answer = staff.post(f"/admin/webhooks/inboundevent/{event.pk}/{act}/", {"body": "{}", "reason": "x"})
        assert answer.status_code == 404
    assert not event.replay(corrected_body="{}")
    assert shadow.run(event).order is None
    assert InboundEvent.objects.get().status == "needs_attention"
