"""Deliveries beside endpoints that hang and fail: how much later do the healthy ones get theirs?

`python -m partner_api.local exec -- python -m bench.webhooks --events 10000` measures on throw-away
engines: real Postgres and Redis, a Celery worker, receivers in a process of their own, over HTTP.
"""

import argparse
import json
import os
import shutil
import socket
import sys
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography.fernet import Fernet

from bench.harness import Bench, Figure, at_most, facts
from partner_api.local.ports import free_port
from partner_api.local.processes import Child

if TYPE_CHECKING:
    from keys.models import Partner

SETTINGS: Final = {
    "ENVIRONMENT": "test",
    "PUBLIC_BASE_URL": "http://127.0.0.1:8000",
    "LOG_LEVEL": "WARNING",
}
_HEALED_PATIENCE_SECONDS: Final = 900
_POLL_SECONDS: Final = 0.2
_END_SECONDS: Final = 3
EVENTS: Final = 200


@dataclass(frozen=True)
class Run:
    """Seconds from an event's creation to its receipt, at the endpoints that were healthy all along."""

    events: int
    healthy: int
    hanging: int
    flaky: int
    p50: float
    p99: float
    took: float
    faults: int


def run(bench: Bench) -> list[Figure]:
    """`webhook_healthy_p99`. Raises RuntimeError when an event was lost."""
    found = compare(EVENTS)
    well, ill = found["all_healthy"], found["with_faults"]
    if well["faults"] or ill["faults"]:
        message = f"{well['faults'] + ill['faults']} deliveries were lost"
        raise RuntimeError(message)
    detail = facts(events=EVENTS, all_healthy_p99_s=well["p99"], with_faults_p99_s=ill["p99"])
    return [at_most("webhook_healthy_p99", found["ratio"], 2, detail)]


def compare(events: int, *, endpoints: int = 20, hanging: int = 5, flaky: int = 5) -> dict[str, Any]:
    """An all-healthy run and one with faults. `ratio` is of the healthy endpoints' p99."""
    well = measure(events, healthy=endpoints, hanging=0, flaky=0)
    ill = measure(events, healthy=endpoints - hanging - flaky, hanging=hanging, flaky=flaky)
    return {"all_healthy": asdict(well), "with_faults": asdict(ill), "ratio": round(ill.p99 / well.p99, 2)}


def measure(events: int, *, healthy: int, hanging: int, flaky: int) -> Run:
    """Publishes events as fast as they can be written, and waits until each is received everywhere.

    What hangs and fails is healed once the healthy ones have all theirs.
    """
    from keys.models import Partner

    partner = Partner.objects.create(name=f"Bench {uuid.uuid4()}")
    with tempfile.TemporaryDirectory(prefix="bench-webhooks-") as name:
        folder = Path(name)
        port = free_port()
        children = [_receiver(port, folder), _worker(folder)]
        try:
            paths = [f"/ok/{n}" for n in range(healthy)]
            ill = [f"/hang/{n}" for n in range(hanging)] + [f"/flaky/{n}" for n in range(flaky)]
            register(partner, [f"http://127.0.0.1:{port}{path}" for path in paths + ill])
            started = time.monotonic()
            created = publish(partner, events)
            received = Received(folder)
            while received.read()["ok"] < events * healthy:
                _check(children)
                time.sleep(_POLL_SECONDS)
            took = time.monotonic() - started
            firsts = received.first.items()
            delays = sorted(at - created[event] for (path, event), at in firsts if path.startswith("/ok/"))
            (folder / "healed").touch()
            ends_at = time.monotonic() + _HEALED_PATIENCE_SECONDS
            # Who looks at each delivery each second slows down what is waited for.
            while _is_open(partner) and time.monotonic() < ends_at:
                _check(children)
                time.sleep(_POLL_SECONDS * 5)
            faults = nothing_lost(partner, received, port)
        finally:
            for child in reversed(children):
                # A worker would wait for answers of endpoints that hang; nobody misses them any more.
                child.stop(seconds=_END_SECONDS)
    return Run(
        events=events,
        healthy=healthy,
        hanging=hanging,
        flaky=flaky,
        p50=round(delays[len(delays) // 2], 3),
        p99=round(delays[int(len(delays) * 0.99)], 3),
        took=round(took, 1),
        faults=len(faults),
    )


class Received:
    """The receivers' log, read on from where it was last read to: it has a line for each delivery."""

    def __init__(self, folder: Path) -> None:
        self.first: dict[tuple[str, str], float] = {}
        self._log = folder / "received.log"
        self._position = 0
        self._counts: Counter[str] = Counter()

    def read(self) -> Counter[str]:
        """How many events have arrived by now at endpoints that are ok, hang, or are flaky.

        When each arrived first, by path and event id, is in `first`.
        """
        if not self._log.exists():
            return self._counts  # nothing has arrived yet
        with self._log.open("rb") as log:
            log.seek(self._position)
            # Its last line may still be being written.
            whole, newline, _ = log.read().rpartition(b"\n")
        self._position += len(whole + newline)
        for line in whole.decode().splitlines():
            at, path, event = line.split(" ")
            if (path, event) not in self.first:
                self.first[path, event] = float(at)
                self._counts[path.split("/")[1]] += 1
        return self._counts


def nothing_lost(partner: "Partner", log: Received, port: int) -> list[str]:
    """What is still missing: at the end of any chaos this list is empty.

    Every event of the partner has a delivery to each endpoint that wants it, which succeeded, and which
    the receiver's own log has at least once.
    """
    from webhooks.event_types import wants
    from webhooks.models import Delivery, Endpoint, Event

    received = defaultdict(set)
    log.read()
    for path, event in log.first:
        received[f"http://127.0.0.1:{port}{path}"].add(event)
    succeeded = defaultdict(set)
    done = Delivery.objects.filter(partner=partner, status=Delivery.Status.SUCCEEDED)
    for endpoint_id, event_id in done.values_list("endpoint", "event"):
        succeeded[endpoint_id].add(str(event_id))
    events = list(Event.objects.filter(partner=partner).values_list("pk", "type"))
    faults = []
    for endpoint in Endpoint.objects.filter(partner=partner):
        wanted = {str(pk) for pk, name in events if wants(endpoint.event_types, name)}
        faults += [f"{endpoint.url} did not receive {event}" for event in wanted - received[endpoint.url]]
        faults += [f"{endpoint.url}: {event} is not settled" for event in wanted - succeeded[endpoint.pk]]
    return faults


def register(partner: "Partner", urls: list[str], event_types: str = "key.*") -> None:
    """Endpoints, as if they had answered before."""
    from django.utils import timezone

    from webhooks import signing
    from webhooks.models import Endpoint

    now = timezone.now()
    for url in urls:
        endpoint = Endpoint(
            partner=partner, livemode=True, url=url, event_types=[event_types], last_success_at=now
        )
        endpoint.give_secret(signing.new_secret(), now=now, overlap=timedelta(0))
        endpoint.save()


def publish(partner: "Partner", events: int) -> dict[str, float]:
    """Each event in a transaction of its own; when each was made, by id."""
    from django.db import transaction

    from webhooks.event_types import KeyNews
    from webhooks.outbox import publish as publish_one

    created = {}
    for _ in range(events):
        with transaction.atomic():
            news = KeyNews(key=partner.pk, prefix="dp_live_bench", expires_at=None)
            event = publish_one("key.revoked", news, partner=partner, livemode=True)
        created[str(event.pk)] = event.created_at.timestamp()
    return created


def _is_open(partner: "Partner") -> bool:
    from webhooks.models import Delivery

    return Delivery.objects.open().filter(partner=partner).exists()


def _receiver(port: int, folder: Path) -> Child:
    (folder / "received.log").touch()
    argv = [sys.executable, "-m", "bench.receiver", str(port), str(folder)]
    child = Child("receiver", argv, log=folder / "receiver.log")
    _wait(lambda: _is_listening(port), "the receiver")
    return child


def _worker(folder: Path) -> Child:
    flags = ["--without-gossip", "--without-mingle", "-c", "2", "-Q", "webhooks", "-B"]
    log = folder / "worker.log"
    argv = [sys.executable, "-m", "celery", "-A", "partner_api", "worker", *flags]
    env = {**os.environ, "LOG_LEVEL": "INFO"}
    child = Child("worker", [*argv, "-s", str(folder / "schedule"), "-l", "INFO"], log=log, env=env)
    _wait(lambda: " ready." in log.read_text(), "the worker")
    return child


def _check(children: list[Child]) -> None:
    for child in children:
        if child.has_ended():
            raise child.ended()


def _wait(is_there: Any, what: str) -> None:
    ends_at = time.monotonic() + 60
    while not is_there():
        if time.monotonic() > ends_at:
            message = f"{what} did not start"
            raise RuntimeError(message)
        time.sleep(0.05)


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.webhooks", description=__doc__)
    parser.add_argument("--events", type=int, default=1000)
    arguments = parser.parse_args()
    var_dir = tempfile.mkdtemp(prefix="bench-var-")
    os.environ |= SETTINGS | {
        "SECRET_KEY": "bench",
        "FIELD_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
        "VAR_DIR": var_dir,
        "DJANGO_SETTINGS_MODULE": "bench.settings",
    }
    import django
    from django.core.management import call_command

    try:
        django.setup()
        call_command("migrate", verbosity=0)
        print(json.dumps(compare(arguments.events), indent=2))
    finally:
        shutil.rmtree(var_dir)


if __name__ == "__main__":
    main()
