"""The cycles of subscriptions on the twin's clock, and invoices: draft for an hour, then final and paid.

Licensed prices are billed for the period that begins, metered ones for the period that ends.
"""

from decimal import Decimal
from typing import Final

from partner_api.local.stripe_twin.cycles import amount_of, following, rounded
from partner_api.local.stripe_twin.metering import Meters
from partner_api.local.stripe_twin.world import Refusal, Thing, World

DRAFT_SECONDS: Final = 3600


class Billing:
    def __init__(self, world: World, meters: Meters) -> None:
        self.world = world
        self.meters = meters
        self._number = 0

    def advance(self, to: int) -> None:
        """Moves the clock, and does what comes due on the way, in its order."""
        with self.world.lock:
            while True:
                due = [(when, what) for when, what in self._due() if when <= to]
                if not due:
                    break
                when, thing = min(due, key=lambda pair: (pair[0], pair[1]["id"]))
                self._move_clock(max(when, self.world.now()))
                self._turn(thing, when) if thing["object"] == "subscription" else self.finalize(thing)
            self._move_clock(to)

    def finalize(self, invoice: Thing) -> Thing:
        if invoice["status"] != "draft":
            raise Refusal(400, "This invoice is already finalized", code="invoice_not_editable")
        self.refresh(invoice)
        self._number += 1
        invoice |= {
            "status": "open",
            "number": f"TWIN-{self._number:05d}",
            "auto_advance": True,
            "hosted_invoice_url": f"https://invoice.stripe.com/i/{invoice['id']}",
            "invoice_pdf": f"https://pay.stripe.com/invoice/{invoice['id']}/pdf",
        }
        invoice["status_transitions"]["finalized_at"] = self.world.now()
        for line in invoice["lines"]["data"]:
            if line.get("_event_name"):
                period = (line["period"]["start"], line["period"]["end"])
                self.meters.closed[invoice["customer"], line["_event_name"]].append(period)
        self.world.announce("invoice.finalized", invoice)
        if invoice["total"] <= 0:
            self._paid(invoice)
        elif invoice["collection_method"] == "charge_automatically":
            self.charge(invoice)
        return invoice

    def charge(self, invoice: Thing) -> bool:
        """Takes the money from the default payment method. False when that failed."""
        invoice["attempt_count"] += 1
        invoice["attempted"] = True
        customer = self.world.objects[invoice["customer"]]
        method = (customer.get("invoice_settings") or {}).get("default_payment_method")
        if not method or self.world.objects.get(method, {}).get("_declines"):
            invoice["next_payment_attempt"] = self.world.now() + 3 * 86_400
            self.world.announce("invoice.payment_failed", invoice)
            return False
        self._paid(invoice)
        return True

    def pay(self, invoice: Thing) -> Thing:
        """As when the partner pays on the hosted page."""
        if invoice["status"] != "open":
            raise Refusal(400, f"The invoice is {invoice['status']}", code="invoice_not_open")
        self._paid(invoice)
        return invoice

    def void(self, invoice: Thing) -> Thing:
        invoice["status"] = "void"
        invoice["status_transitions"]["voided_at"] = self.world.now()
        self.world.announce("invoice.voided", invoice)
        return invoice

    def refresh(self, invoice: Thing) -> Thing:
        """A draft's usage lines follow what aggregation has seen; its items are those that wait."""
        if invoice["status"] != "draft":
            return invoice
        for line in invoice["lines"]["data"]:
            if line.get("_event_name"):
                self._measure(line, invoice["customer"])
        self.settle_totals(invoice)
        return invoice

    def _due(self) -> list[tuple[int, Thing]]:
        cycles = [
            (thing["items"]["data"][0]["current_period_end"], thing)
            for thing in self.world.all("subscription")
            if thing["status"] == "active"
        ]
        drafts = [
            (thing["automatically_finalizes_at"], thing)
            for thing in self.world.all("invoice")
            if thing["status"] == "draft" and thing["auto_advance"]
        ]
        return cycles + drafts

    def _move_clock(self, to: int) -> None:
        self.world.offset_seconds += to - self.world.now()

    def _turn(self, subscription: Thing, now: int) -> None:
        """One period ends: a draft for its usage, and for the base fee of the next."""
        items = subscription["items"]["data"]
        start, end = items[0]["current_period_start"], items[0]["current_period_end"]
        is_last = subscription["cancel_at"] is not None and subscription["cancel_at"] <= end
        after = following(subscription["_day"], end)
        following_end = min(after, subscription["cancel_at"] or after)
        invoice = self.draft(subscription, start, end, "subscription_cycle")
        for item in items:
            if item["price"]["recurring"]["usage_type"] == "metered":
                self._metered_line(invoice, item, start, end)
            elif not is_last:
                self.licensed_line(
                    invoice, item, (end, following_end), share=(following_end - end, after - end)
                )
            item |= {"current_period_start": end, "current_period_end": following_end}
        for waiting in [
            item
            for item in self.world.all("invoiceitem")
            if item["invoice"] is None and item["customer"] == subscription["customer"]
        ]:
            self.add_item(invoice, waiting)
        if is_last:
            subscription |= {"status": "canceled", "ended_at": end}
            self.world.announce("customer.subscription.deleted", subscription)
        self.settle_totals(invoice)
        self.world.announce("invoice.created", invoice)

    def add_item(self, invoice: Thing, item: Thing) -> None:
        item["invoice"] = invoice["id"]
        moment = {"start": item["created"], "end": item["created"]}
        line = self._line(invoice, item["description"], item["amount"], 1, moment)
        line["metadata"] = item["metadata"]
        line["parent"] = {
            "type": "invoice_item_details",
            "invoice_item_details": {"invoice_item": item["id"]},
        }
        self.settle_totals(invoice)

    def draft(self, subscription: Thing, start: int, end: int, reason: str) -> Thing:
        currency = subscription["items"]["data"][0]["price"]["currency"]
        method = subscription["collection_method"]
        days = int(subscription["days_until_due"] or 0)
        return self.world.new(
            "invoice",
            customer=subscription["customer"],
            status="draft",
            currency=currency,
            billing_reason=reason,
            collection_method=method,
            auto_advance=True,
            automatically_finalizes_at=self.world.now() + DRAFT_SECONDS,
            period_start=start,
            period_end=end,
            due_date=self.world.now() + days * 86_400 if method == "send_invoice" else None,
            lines={"object": "list", "data": [], "has_more": False, "url": "/v1/invoices/lines"},
            parent={
                "type": "subscription_details",
                "subscription_details": {
                    "subscription": subscription["id"],
                    "metadata": subscription["metadata"],
                },
            },
            status_transitions={
                "finalized_at": None,
                "paid_at": None,
                "voided_at": None,
                "marked_uncollectible_at": None,
            },
            metadata={},
            number=None,
            hosted_invoice_url=None,
            invoice_pdf=None,
            attempt_count=0,
            attempted=False,
            next_payment_attempt=None,
            amount_due=0,
            amount_paid=0,
            amount_remaining=0,
            subtotal=0,
            total=0,
        )

    def _line(
        self, invoice: Thing, description: str, amount: int, quantity: int, period: dict[str, int]
    ) -> Thing:
        line = self.world.new(
            "line_item",
            invoice=invoice["id"],
            description=description,
            amount=amount,
            subtotal=amount,
            currency=invoice["currency"],
            quantity=quantity,
            period=period,
            pricing=None,
            parent=None,
            metadata={},
        )
        invoice["lines"]["data"].append(line)
        return line

    def licensed_line(
        self, invoice: Thing, item: Thing, period: tuple[int, int], share: tuple[int, int]
    ) -> None:
        price = item["price"]
        if price["recurring"]["usage_type"] != "licensed":
            return
        full = Decimal(price["unit_amount_decimal"]) * item["quantity"]
        line = self._line(
            invoice,
            price["nickname"] or "Base",
            rounded(full * share[0] / share[1]),
            item["quantity"],
            {"start": period[0], "end": period[1]},
        )
        self._priced(line, item)

    def _metered_line(self, invoice: Thing, item: Thing, start: int, end: int) -> None:
        price = item["price"]
        meter = self.world.objects[price["recurring"]["meter"]]
        line = self._line(invoice, price["nickname"] or "Usage", 0, 0, {"start": start, "end": end})
        line["_event_name"] = meter["event_name"]
        self._priced(line, item)
        self._measure(line, invoice["customer"])

    def _priced(self, line: Thing, item: Thing) -> None:
        price = item["price"]
        line["pricing"] = {
            "type": "price_details",
            "price_details": {"price": price["id"], "product": price["product"]},
            "unit_amount_decimal": price.get("unit_amount_decimal"),
        }
        line["parent"] = {
            "type": "subscription_item_details",
            "subscription_item_details": {
                "subscription_item": item["id"],
                "subscription": item["subscription"],
            },
        }

    def _measure(self, line: Thing, customer: str) -> None:
        price = self.world.objects[line["pricing"]["price_details"]["price"]]
        period = line["period"]
        used = self.meters.total(customer, line["_event_name"], period["start"], period["end"])
        quantity = max(0, int(used))
        line["quantity"] = quantity
        line["amount"] = line["subtotal"] = amount_of(price, quantity)

    def settle_totals(self, invoice: Thing) -> None:
        total = sum(line["amount"] for line in invoice["lines"]["data"])
        invoice |= {"subtotal": total, "total": total, "amount_due": max(0, total)}
        invoice["amount_remaining"] = invoice["amount_due"] - invoice["amount_paid"]

    def _paid(self, invoice: Thing) -> None:
        invoice |= {"status": "paid", "amount_paid": invoice["amount_due"], "amount_remaining": 0}
        invoice["status_transitions"]["paid_at"] = self.world.now()
        invoice["next_payment_attempt"] = None
        self.world.announce("invoice.paid", invoice)
