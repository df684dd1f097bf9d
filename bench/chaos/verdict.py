"""What must be true in the end. Each check answers with what is off; a new one is added to CHECKS."""

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import requests
from django.utils import timezone

from bench.billing import differences
from bench.chaos.clients import Record
from bench.chaos.plan import Order, Plan
from bench.webhooks import Received, nothing_lost
from billing.models import ApiUsage, LedgerEntry, Reservation
from billing.reconciliation import find_variances
from deeds import storage, verifying
from deeds.models import Deed
from keys.models import Partner

_LINKS: Final = 60
_CATCH_UP_SECONDS: Final = 120.0


@dataclass
class Evidence:
    """All that a check may look at, besides the database and the storage.

    `catch_up` is how many seconds after the renderer came back its last early order was completed,
    `stripe` what the twin says of itself, None where there was none.
    """

    plan: Plan
    orders: list[Order]
    record: Record
    ended: list[str]
    url: str
    key: str
    catch_up: float
    folder: Path = Path()
    receiver_port: int = 0
    stripe: dict[str, Any] | None = None


Check = Callable[[Evidence], list[str]]


def every_order_was_accepted(seen: Evidence) -> list[str]:
    return [*seen.record.refused, *(f"order {number} was never answered" for number in seen.record.given_up)]


def no_accepted_order_is_lost(seen: Evidence) -> list[str]:
    there = {str(pk) for pk in Deed.objects.values_list("pk", flat=True)}
    lost = [f"order {n}: deed {deed}" for n, deed in seen.record.deeds.items() if deed not in there]
    return lost + [f"deed {deed} was answered and then not found" for deed in seen.record.vanished]


def every_deed_is_settled(seen: Evidence) -> list[str]:
    return [
        f"{deed.order_id} is {deed.status} after {deed.attempts} attempts: {deed.timeline[-2:]}"
        for deed in Deed.objects.filter(status__in=["queued", "rendering"])
    ]


def no_order_is_doubled(seen: Evidence) -> list[str]:
    """A failed deed frees its order, so a client that sends it again has made a second one in order."""
    alive = Counter(Deed.objects.exclude(status="failed").values_list("order_id", "deed_type"))
    return [f"{order_id}: {count} deeds" for (order_id, _), count in alive.items() if count > 1]


def every_end_is_explained(seen: Evidence) -> list[str]:
    """By the fault that the order asked for: nothing else may keep a deed from being completed."""
    deeds = {str(deed.pk): deed for deed in Deed.objects.all()}
    wrong = []
    for order in seen.orders:
        deed = deeds.get(seen.record.deeds.get(order.number, ""))
        if deed is None:
            continue
        is_right = deed.status == order.ends and (deed.status != "failed" or deed.failure_code)
        if not is_right:
            wrong.append(f"{deed.order_id} is {deed.status} {deed.failure_code}, should be {order.ends}")
    return wrong


def what_waited_for_the_renderer_was_made_soon(seen: Evidence) -> list[str]:
    is_late = seen.catch_up > _CATCH_UP_SECONDS
    return [f"it took {seen.catch_up:.0f} s after its return"] if is_late else []


def each_completed_deed_has_its_one_pdf(seen: Evidence) -> list[str]:
    report = verifying.verify(limit=None)
    wrong = [] if report.is_clean else [f"{report}"]
    # A writer that was killed leaves its draft, which nobody reads; `storage_orphans` clears it up.
    names = {found.name for found in storage.walk() if not found.name.endswith(".draft")}
    expected = {storage.name_of(deed) for deed in Deed.objects.filter(status="completed")}
    wrong += [f"{name} belongs to no completed deed" for name in names - expected]
    return wrong + [f"{name} is missing" for name in expected - names]


def links_lead_to_the_pdfs(seen: Evidence) -> list[str]:
    wrong = []
    with requests.Session() as session:
        session.trust_env = False
        for deed in Deed.objects.filter(status="completed").order_by("?")[:_LINKS]:
            answer = session.get(
                f"{seen.url}/v2/deeds/{deed.pk}", headers={"Authorization": f"Bearer {seen.key}"}, timeout=10
            )
            content = session.get(answer.json()["pdf"]["url"], timeout=10).content
            if hashlib.sha256(content).hexdigest() != deed.pdf_sha256:
                wrong.append(f"{deed.order_id}: the link gives another file")
    return wrong


def each_completed_deed_is_charged_once(seen: Evidence) -> list[str]:
    """The ledger's own check against the deeds, and that no order holds a place in a quota for nothing."""
    now = timezone.now()
    found = find_variances(now - dt.timedelta(days=1), now + dt.timedelta(days=1))
    charged = LedgerEntry.objects.filter(kind=LedgerEntry.Kind.DEED).count()
    completed = Deed.objects.filter(status="completed", livemode=True).count()
    wrong = [f"{one.kind}: {one.subject}" for one in found]
    if charged != completed:
        wrong.append(f"{completed} completed deeds, {charged} charges")
    held = Reservation.objects.count()
    return [*wrong, f"{held} places are held by nobody"] if held else wrong


def each_charge_reached_stripe_once(seen: Evidence) -> list[str]:
    """By the twin's own count of each partner's deeds, and without breaking a rule of Stripe's."""
    if seen.stripe is None:
        return []
    open_ones = LedgerEntry.objects.exclude(sync_state=LedgerEntry.SyncState.ACCEPTED)
    wrong = [f"entry {entry.pk} is {entry.sync_state}: {entry.sync_error}" for entry in open_ones]
    wrong += differences(list(Partner.objects.all()), seen.stripe)
    return wrong + [f"rule broken: {violation}" for violation in seen.stripe["violations"]]


def each_answer_is_in_the_request_log(seen: Evidence) -> list[str]:
    """Once, whichever process was killed after it was given."""
    rows = Counter(ApiUsage.objects.values_list("request_id", flat=True))
    return [f"answer {one} has {rows[one]} rows" for one in seen.record.request_ids if rows[one] != 1]


def each_end_was_told_at_least_once(seen: Evidence) -> list[str]:
    """To both endpoints of the partner: one that answers, and one that failed every other time."""
    return [
        fault
        for partner in Partner.objects.all()
        for fault in nothing_lost(partner, Received(seen.folder), seen.receiver_port)
    ]


def no_server_error_is_bare(seen: Evidence) -> list[str]:
    return seen.record.bare_errors


def no_process_ended_by_itself(seen: Evidence) -> list[str]:
    return seen.ended


CHECKS: list[Check] = [
    every_order_was_accepted,
    no_accepted_order_is_lost,
    every_deed_is_settled,
    no_order_is_doubled,
    every_end_is_explained,
    what_waited_for_the_renderer_was_made_soon,
    each_completed_deed_has_its_one_pdf,
    links_lead_to_the_pdfs,
    each_completed_deed_is_charged_once,
    each_charge_reached_stripe_once,
    each_answer_is_in_the_request_log,
    each_end_was_told_at_least_once,
    no_server_error_is_bare,
    no_process_ended_by_itself,
]
