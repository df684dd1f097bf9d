"""Who may come in: signatures, their times, secrets and sources."""

import datetime as dt
import json
from typing import Any

import pytest
from django.utils import timezone

from deeds.models import Deed
from keys.models import Partner
from tests.webhooks.conftest import NOW, Sources
from tests.webhooks.inbound_calls import FIRST, post, refused_as, send, sign
from webhooks import tasks
from webhooks.models import InboundEvent, Source

pytestmark = pytest.mark.usefixtures("hinted", "clock")


@pytest.mark.parametrize(
    "change",
    [
        {"X-SoftPro-Signature": None},
        {"X-SoftPro-Signature": ""},
        {"X-SoftPro-Signature": "0" * 64},
        {"X-SoftPro-Signature": "not hex"},
        {"X-SoftPro-Signature": "sha1={}"},
        {"X-SoftPro-Signature": "{},{}"},
        {"X-SoftPro-Signature": "{}, {}"},
        {"X-SoftPro-Signature": "{}00"},
        {"X-Signature": "0" * 64},
        {"X-Webhook-Timestamp": str(int(NOW.timestamp()) + 1)},
        {"X-Webhook-Timestamp": None},
    ],
)
def test_a_signature_that_is_not_right_lets_nothing_in(
    source: Sources, change: dict[str, str | None]
) -> None:
    source()
    body = json.dumps(FIRST).encode()
    headers = sign(body)
    for name, value in change.items():
        right = headers.pop(name, "")
        if value is not None:
            headers[name] = value.replace("{}", right)
    refused_as(post(body, headers))


def test_two_headers_of_one_name_are_none(source: Sources) -> None:
    """As a server hands over a header that was sent twice."""
    source()
    body = json.dumps(FIRST).encode()
    headers = sign(body)
    headers["X-SoftPro-Signature"] = ",".join([headers["X-SoftPro-Signature"], "0" * 64])
    refused_as(post(body, headers))


@pytest.mark.parametrize("form", ["{}", "sha256={}", "SHA256={}", " {} "])
@pytest.mark.parametrize("name", ["X-SoftPro-Signature", "X-Signature"])
def test_the_forms_of_the_header(source: Sources, form: str, name: str) -> None:
    source()
    body = json.dumps(FIRST).encode()
    headers = sign(body)
    digest = headers.pop("X-SoftPro-Signature")
    digest = digest.upper() if form.startswith("SHA") else digest
    assert post(body, headers | {name: form.format(digest)}).status_code == 202


def test_the_bytes_are_what_is_signed(source: Sources) -> None:
    source()
    body = json.dumps(FIRST, indent=1).encode()
    headers = sign(body)
    refused_as(post(json.dumps(json.loads(body)).encode(), headers))
    refused_as(post(body.replace(b"SP-1", b"SP-2"), headers))
    refused_as(post(body + b" ", headers))
    refused_as(post(b"", headers))
    assert post(body, headers).status_code == 202


@pytest.mark.parametrize("seconds", [-360, -301, 301, 360])
def test_a_time_that_is_far_off_is_stale(source: Sources, seconds: int) -> None:
    source()
    body = json.dumps(FIRST).encode()
    headers = sign(body, at=NOW + dt.timedelta(seconds=seconds))
    refused_as(post(body, headers), "stale_signature")
    # Who does not hold the secret is not told that.
    refused_as(post(body, headers | {"X-SoftPro-Signature": "0" * 64}))


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_a_time_within_five_minutes_is_taken(source: Sources, seconds: int) -> None:
    source()
    body = json.dumps(FIRST).encode()
    assert post(body, sign(body, at=NOW + dt.timedelta(seconds=seconds))).status_code == 202


@pytest.mark.parametrize("text", ["", "now", "1.5", "-1", "99999999999999999999"])
def test_a_time_that_is_none_is_stale(source: Sources, text: str) -> None:
    source()
    body = json.dumps(FIRST).encode()
    refused_as(post(body, sign(body, at=text)), "stale_signature")


def test_a_strict_source_needs_a_time_and_another_does_not(source: Sources) -> None:
    strict = source()
    body = json.dumps(FIRST).encode()
    refused_as(post(body, sign(body, at=None)), "stale_signature")
    strict.strict = False
    strict.save()
    assert post(body, sign(body, at=None)).status_code == 202


def test_another_sources_secret_opens_only_its_own_door(source: Sources) -> None:
    other = Partner.objects.create(name="Pacific Escrow")
    mine = source()
    source("softpro", secret="theirs", partner=other)
    source("qualia", secret="of qualia")
    body = json.dumps(FIRST).encode()
    refused_as(post(body, sign(body, secret="of qualia")))
    assert post(body, sign(body, secret="theirs")).status_code == 202
    tasks.process()
    assert Deed.objects.get().partner == other
    # The same bytes and id of another source are another event.
    assert post(body, sign(body)).status_code == 202
    assert InboundEvent.objects.filter(source=mine).count() == 1


def test_a_further_source_of_a_system_takes_no_others_place(source: Sources, settings: Any) -> None:
    settings.WEBHOOKS_SOURCES_TRIED = 2
    off = source(secret="off", enabled=False, partner=Partner.objects.create(name="Off"))
    mine = source()
    theirs = source(secret="theirs", partner=Partner.objects.create(name="Pacific Escrow"))
    assert [one.must_be_named for one in (off, mine, theirs)] == [False, False, True]
    assert send().status_code == 202
    body = json.dumps(FIRST).encode()
    signed = sign(body, secret="theirs")
    unnamed = post(body, signed)
    assert (unnamed.status_code, unnamed.json()["code"]) == (401, "invalid_signature")
    assert "X-Webhook-Source" in unnamed.json()["detail"]
    assert post(body, signed | {"X-Webhook-Source": str(theirs.pk)}).status_code == 202
    assert post(body, signed | {"X-Webhook-Source": str(mine.pk)}).status_code == 401
    assert post(body, signed | {"X-Webhook-Source": "nonsense"}).status_code == 401
    Source.objects.filter(pk=off.pk).update(enabled=True)
    assert send({**FIRST, "order_id": "SP-9"}).status_code == 202, "nor does one that is enabled again"


def test_each_secret_holds_while_they_overlap(source: Sources, clock: Any) -> None:
    mine = source()
    mine.give_secret("fresh", now=timezone.now(), overlap=dt.timedelta(hours=24))
    mine.save()
    bodies = [json.dumps(FIRST | {"order_id": f"SP-{n}"}).encode() for n in range(4)]
    assert post(bodies[0], sign(bodies[0])).status_code == 202
    assert post(bodies[1], sign(bodies[1], secret="fresh")).status_code == 202
    clock.shift(dt.timedelta(hours=25))
    later = timezone.now()
    assert post(bodies[2], sign(bodies[2], at=later)).status_code == 401
    assert post(bodies[3], sign(bodies[3], secret="fresh", at=later)).status_code == 202


def test_a_disabled_source_and_an_unknown_system(source: Sources) -> None:
    source(enabled=False)
    refused_as(send())
    body = json.dumps(FIRST).encode()
    assert post(body, sign(body), "acme").status_code == 404
    assert post(body, sign(body), "shapes").status_code == 404


def test_a_suspended_partner_is_refused_once_the_signature_is_right(source: Sources, acme: Partner) -> None:
    source()
    Partner.objects.update(status="suspended")
    refused_as(send(), "partner_suspended")
    refused_as(post(b"{}", {"X-SoftPro-Signature": "0" * 64}))


def test_a_partner_suspended_meanwhile_gets_no_deed(source: Sources, acme: Partner) -> None:
    source()
    send()
    Partner.objects.update(status="suspended")
    tasks.process()
    stored = InboundEvent.objects.get()
    assert (stored.status, stored.reason_code) == ("needs_attention", "partner_suspended")
    assert not Deed.objects.exists()


def test_a_body_that_is_too_large_is_refused_before_it_is_read(source: Sources) -> None:
    source()
    body = b'"' + b"a" * (10 * 1024 * 1024) + b'"'
    answer = post(body, sign(body))
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert not InboundEvent.objects.exists()


@pytest.mark.parametrize("name", ["", "a b", "é", "x" * 201])
def test_an_id_that_is_none_is_refused(source: Sources, name: str) -> None:
    source()
    assert send(X_Webhook_Id=name).status_code == 400
    assert not InboundEvent.objects.exists()
