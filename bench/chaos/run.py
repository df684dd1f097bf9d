"""One run: start, order and break at once, mend all, wait until it settles, judge."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from django.db import connection
from django.test import override_settings

from bench.billing import ask_twin, faults, open_account, pointed_at
from bench.chaos.clients import Client, Record
from bench.chaos.deployment import Deployment
from bench.chaos.plan import ORDINARY, Blow, Plan
from bench.chaos.verdict import CHECKS, Evidence
from bench.webhooks import register
from billing.models import ApiUsage, LedgerEntry
from deeds.models import Deed
from keys.models import ApiKey, Partner
from webhooks.models import Delivery

_START_SECONDS = 60.0
_LEAST_SETTLE_SECONDS = 20.0
_CATCH_UP = "caught up after the renderer came back"
_PROCESSES = ("redis", "stripe", "receiver", "web", "worker", "beat")
_DELIVERED_SECONDS = 60.0
_STORED_SECONDS = 30.0
LIMITS = {"rate_limit_per_minute": 1_000_000, "rate_limit_burst": 1_000_000}


@dataclass
class Result:
    """`faults` has what each check found; a run is good when none found anything."""

    plan: Plan
    blows: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[str]] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        return not any(self.faults.values())

    @property
    def kills(self) -> int:
        return sum(count for what, count in self.blows.items() if what != "storage")


def run(plan: Plan, folder: Path, *, database_url: str, say: Callable[[str], None]) -> Result:
    """Uses an empty, migrated database, which this process's Django settings name too."""
    result = Result(plan)
    begun = time.monotonic()
    running = Deployment(folder, database_url=database_url, retries=plan.retries)
    try:
        with override_settings(**pointed_at(running.stripe_url)):
            _run(plan, running, result, begun, say)
    finally:
        running.stop()
    return result


def _run(plan: Plan, running: Deployment, result: Result, begun: float, say: Callable[[str], None]) -> None:
    for name in _PROCESSES:
        running.start(name)
    running.running["web"].wait_until(running.answers, seconds=_START_SECONDS)
    partner = Partner.objects.create(name=f"Chaos {plan.seed}", monthly_deed_quota=10 * plan.orders)
    _, key = ApiKey.issue(
        partner, name="Chaos", environment="live", scopes=["deed:create", "deed:read"], **LIMITS
    )
    open_account(partner)
    ask = partial(ask_twin, running.stripe_url)
    ask("faults", faults=faults(max(1, plan.orders // 50), chance=0.05))
    hooks = f"http://127.0.0.1:{running.receiver_port}"
    register(partner, [f"{hooks}/ok/1", f"{hooks}/flaky/1"], "deed.*")
    record = _turmoil(plan, running, key, result, say)
    say("all blows dealt, all orders sent; waiting until every deed is settled")
    started = time.monotonic()
    _wait_until_settled(running, max(plan.limit - (started - begun), _LEAST_SETTLE_SECONDS))
    result.times["settled after the last order"] = time.monotonic() - started
    (running.folder / "healed").touch()
    ask("faults", faults=[])
    started = time.monotonic()
    _wait_until_told(running)
    result.times["told after the last deed"] = time.monotonic() - started
    started = time.monotonic()
    _wait_until_stored(record)
    result.times["charged and counted after that"] = time.monotonic() - started
    say("counting")
    seen = Evidence(
        plan,
        plan.make_orders(),
        record,
        running.ended,
        running.url,
        key,
        result.times[_CATCH_UP],
        running.folder,
        running.receiver_port,
        ask("state"),
    )
    result.faults = {check.__name__.replace("_", " "): check(seen) for check in CHECKS}
    result.statuses = record.statuses
    _count(seen, result)


def _turmoil(plan: Plan, running: Deployment, key: str, result: Result, say: Callable[[str], None]) -> Record:
    orders, blows = plan.make_orders(), plan.make_blows()
    record = Record()
    deadline = time.monotonic() + plan.limit

    def send(number: int, pause: float, first: int, last: int) -> None:
        client = Client(running.url, key, record, seed=f"client {plan.seed} {number}", pause=pause)
        client.run(orders[first:last][number :: plan.clients], deadline=deadline)

    with ThreadPoolExecutor(plan.clients) as pool:
        say(f"{plan.away} orders while there is no renderer")
        for done in [pool.submit(send, number, 0.0, 0, plan.away) for number in range(plan.clients)]:
            done.result()
        running.start("sandbox")
        back = time.monotonic()
        # Without those that ask for faults, which take their time by themselves.
        early = [record.deeds[o.number] for o in orders if o.number in record.deeds and o.fault == ORDINARY]
        watch = threading.Thread(target=_time_catching_up, args=(early, back, plan, result))
        watch.start()
        say(f"{len(orders) - plan.away} orders by {plan.clients} clients, and {len(blows)} blows")
        each = max(1, (len(orders) - plan.away) / plan.clients)
        pause = _duration(blows) / each
        sending = [pool.submit(send, number, pause, plan.away, len(orders)) for number in range(plan.clients)]
        for blow in blows:
            time.sleep(blow.pause)
            result.blows[_deal(blow, running)] += 1
        for done in sending:
            done.result()
        watch.join()
    return record


def _deal(blow: Blow, running: Deployment) -> str:
    """Breaks something, waits, and mends it; what it was in fact."""
    running.notice_ended()
    if blow.what == "storage":
        running.refuse_storage()
        time.sleep(blow.lasts)
        running.allow_storage()
        return "storage"
    if blow.what.endswith(" child"):
        parent = blow.what.removesuffix(" child")
        if running.kill_child(parent):
            return blow.what
        running.kill(parent)
        running.start(parent)
        return parent
    running.kill(blow.what)
    time.sleep(blow.lasts)
    running.start(blow.what)
    return blow.what


def _time_catching_up(early: list[str], back: float, plan: Plan, result: Result) -> None:
    """How long after the renderer came back the last of the deeds that waited for it was completed."""
    try:
        while Deed.objects.filter(pk__in=early).exclude(status="completed").exists():
            if time.monotonic() - back > plan.limit:
                break
            time.sleep(0.2)
        result.times[_CATCH_UP] = time.monotonic() - back
    finally:
        connection.close()


def _wait_until_settled(running: Deployment, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while Deed.objects.filter(status__in=["queued", "rendering"]).exists() and time.monotonic() < deadline:
        running.notice_ended()
        time.sleep(0.2)
    running.running["web"].wait_until(running.answers, seconds=_START_SECONDS)


def _wait_until_told(running: Deployment) -> None:
    """The receiver fails no more; what is still open is sent again within seconds."""
    deadline = time.monotonic() + _DELIVERED_SECONDS
    while Delivery.objects.open().exists() and time.monotonic() < deadline:
        running.notice_ended()
        time.sleep(0.2)


def _wait_until_stored(record: Record) -> None:
    """What was charged is at Stripe, and the last answers' rows have left the spool."""
    deadline = time.monotonic() + _STORED_SECONDS
    while time.monotonic() < deadline and (
        LedgerEntry.objects.pending().exists() or ApiUsage.objects.count() < len(record.request_ids)
    ):
        time.sleep(0.2)


def _duration(blows: list[Blow]) -> float:
    return sum(blow.pause + (0 if blow.what.endswith("child") else blow.lasts) for blow in blows)


def _count(seen: Evidence, result: Result) -> None:
    ends = {str(pk): status for pk, status in Deed.objects.values_list("pk", "status")}
    for order in seen.orders:
        deed = seen.record.deeds.get(order.number)
        result.outcomes[order.fault, ends.get(deed, "lost") if deed else "not accepted"] += 1
