"""What `make demo STRIPE=twin` shows after the first deed: a billing month, from orders to the payment.

Stripe is the twin, whose clock is moved to the month's end; ours and the machine's stay as they are.
"""

import datetime as dt
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import requests

from partner_api.local.processes import POLL_SECONDS, Failed
from partner_api.local.stack import Stack

Say = Callable[[str], None]
_PATIENCE_SECONDS: Final = 90.0
_KINDS: Final = ("grant", "warranty", "quitclaim", "grant", "interspousal", "grant", "warranty", "grant")
_DONE: Final = {"completed", "failed", "cancelled"}
_MULTI_STATUS: Final = 207


class Month:
    """`start_twin` comes before the product's processes, which must know where Stripe is."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.key = "sk_test_" + os.urandom(12).hex()
        self.url = ""
        self.known: set[str] = set()

    def start_twin(self) -> None:
        """Starts it and points the product at it. Raises Failed."""
        own = self.stack.own
        own["STRIPE_SECRET_KEY"] = self.key
        own["STRIPE_WEBHOOK_SECRETS"] = "whsec_" + os.urandom(16).hex()
        own["STRIPE_SYNC_SECONDS"] = "2"
        webhooks = f"{own['PUBLIC_BASE_URL']}/webhooks/stripe"
        arguments = ["-m", "partner_api.local.stripe_twin", "--webhook-url", webhooks]
        twin = self.stack.start("stripe-twin", arguments)
        twin.wait_until(lambda: "http://" in twin.log.read_text(errors="replace"), seconds=30)
        self.url = twin.log.read_text().split()[0]
        own["STRIPE_API_BASE"] = self.url

    def prepare(self, partner: dict[str, Any], say: Say) -> None:
        """Brings the partner's contract to Stripe, before anything is charged. Raises Failed."""
        say(f"bringing the contract of {partner['name']} to a Stripe twin at {self.url}")
        for line in self._manage("stripe_provision", "--partner", partner["name"]).splitlines():
            say(f"  {line}")

    def show(self, base_url: str, partner: dict[str, Any], say: Say) -> None:
        """Prints each step with its amounts. Raises Failed."""
        session = requests.Session()
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {partner['api_key']}"
        say(f"a billing month of {partner['name']}")
        self.known = {row["id"] for row in _read(session, f"{base_url}/v2/invoices")["data"]}
        say(f"ordering {len(_KINDS)} more deeds of {len(set(_KINDS))} types: POST {base_url}/v2/deeds/batch")
        self._order(session, base_url)
        running = _read(session, f"{base_url}/v2/billing")
        say(f"used so far: {_usage(running)}")
        customer = self._customer()
        count = self._wait("all deeds are at Stripe", lambda: self._sent(customer))
        say(f"the ledger is at Stripe: {count}")
        ended = self._period_end()
        say(f"moving Stripe's clock to the end of the period ({_day(ended)})")
        self._twin("advance", to=ended + 60)
        invoice = self._wait("the invoice is finalized", lambda: self._invoice(session, base_url))
        say(f"invoice {invoice['number']}: {invoice['total']} {invoice['currency']}, {invoice['status']}")
        for line in invoice["lines"]:
            unit = f" at {line['unit_price']}" if line["unit_price"] else ""
            say(f"  {line['quantity']:>5} {line['description']}{unit}: {line['amount']}")
        if invoice["status"] == "open":
            say(f"{partner['name']} pays on {invoice['hosted_invoice_url']}")
            for at_stripe in self._twin("state")["invoices"]:
                if at_stripe["status"] == "open" and at_stripe["customer"] == customer:
                    self._twin("pay", invoice=at_stripe["id"])
        paid = self._wait("the payment is known", lambda: self._paid(session, base_url, invoice["id"]))
        say(f"invoice {paid['number']} is {paid['status']}: {paid['amount_paid']} {paid['currency']}")
        say("reconciling deeds, ledger, meter events and invoice lines")
        # What was ordered after an earlier showing is late, and is put on the next invoice.
        arguments = ("--partner", partner["name"], "--to", _day(ended)[:10], "--repair")
        for line in self._manage("reconcile", *arguments).splitlines():
            say(f"  {line}")

    def _order(self, session: requests.Session, base_url: str) -> None:
        stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%d-%H%M%S")
        orders = []
        for number, kind in enumerate(_KINDS):
            catalog = _read(session, f"{base_url}/v2/deed-types/{kind}")
            orders.append({**catalog["example"], "order_id": f"MONTH-{stamp}-{number}"})
        answer = session.post(f"{base_url}/v2/deeds/batch", json={"orders": orders}, timeout=60)
        if answer.status_code != _MULTI_STATUS:
            message = f"the batch was answered {answer.status_code}: {answer.text[:500]}"
            raise Failed(message)
        for item in answer.json()["data"]:
            if "deed" not in item:
                message = f"an order of the month was refused: {item}"
                raise Failed(message)
            ask = functools.partial(_done, session, base_url, item["deed"]["id"])
            self._wait("a deed is rendered", ask)

    def _sent(self, customer: str) -> str:
        sums = self._twin("state")["sums"].get(customer, {})
        total = sum(sums.values())
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(sums.items()))
        return "" if total < len(_KINDS) else f"{total} meter events ({kinds})"

    def _invoice(self, session: requests.Session, base_url: str) -> dict[str, Any] | None:
        """The newest of Stripe's invoices that has the month's usage."""
        for row in _read(session, f"{base_url}/v2/invoices")["data"]:
            is_new = row["id"] not in self.known
            if is_new and row["is_sent"] and row["status"] in {"open", "paid"}:
                invoice = _read(session, f"{base_url}/v2/invoices/{row['id']}")
                if any(line["kind"] == "deed" for line in invoice["lines"]):
                    return invoice
        return None

    def _paid(self, session: requests.Session, base_url: str, invoice_id: str) -> dict[str, Any] | None:
        invoice = _read(session, f"{base_url}/v2/invoices/{invoice_id}")
        return invoice if invoice["status"] == "paid" else None

    def _customer(self) -> str:
        customers = self._twin("state")["customers"]
        return str(customers[-1])

    def _period_end(self) -> int:
        return int(min(self._twin("state")["period_ends"]))

    def _twin(self, what: str, **body: Any) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.key}"}
        answer = requests.post(f"{self.url}/_twin/{what}", json=body, headers=headers, timeout=30)
        facts: dict[str, Any] = answer.json()
        return facts

    def _manage(self, *arguments: str) -> str:
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "manage.py", *arguments],
            env=self.stack.env,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            message = (
                f"manage.py {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
            raise Failed(message)
        return done.stdout

    def _wait(self, what: str, ask: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not (answer := ask()):
            self.stack.family.check()
            if time.monotonic() > deadline:
                message = f"{what}: not after {_PATIENCE_SECONDS:.0f} s"
                raise Failed(message)
            time.sleep(POLL_SECONDS * 6)
        return answer


def _read(session: requests.Session, url: str) -> dict[str, Any]:
    answer = session.get(url, timeout=20)
    if not answer.ok:
        message = f"GET {url} answered {answer.status_code}: {answer.text[:500]}"
        raise Failed(message)
    facts: dict[str, Any] = answer.json()
    return facts


def _done(session: requests.Session, base_url: str, deed_id: str) -> bool:
    status = _read(session, f"{base_url}/v2/deeds/{deed_id}")["status"]
    if status in _DONE - {"completed"}:
        message = f"deed {deed_id} is {status}"
        raise Failed(message)
    return bool(status == "completed")


def _usage(billing: dict[str, Any]) -> str:
    """What the running period has used and will cost, as the partner reads it."""
    parts = []
    for estimate in billing["estimate"]:
        lines = ", ".join(f"{line['quantity']} {line['description']}" for line in estimate["lines"])
        parts.append(f"{lines}: {estimate['total']} {estimate['currency']} by the end of the period")
    return "; ".join(parts)


def _day(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
