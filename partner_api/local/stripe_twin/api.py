"""Each call of the API that billing makes: what it checks, changes, announces and answers."""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from partner_api.local.stripe_twin.forms import truth
from partner_api.local.stripe_twin.invoicing import Billing
from partner_api.local.stripe_twin.metering import Meters
from partner_api.local.stripe_twin.world import Refusal, Thing, World

Params = dict[str, Any]
# A payment method of this name is declined, as Stripe's own test card is.
DECLINED: Final = "pm_card_chargeDeclined"


class Api:
    def __init__(self, world: World, meters: Meters, billing: Billing) -> None:
        self.world = world
        self.meters = meters
        self.billing = billing
        self._routes: list[tuple[str, re.Pattern[str], Callable[..., Thing]]] = [
            (method, re.compile(path.replace("{id}", r"([\w.:-]+)")), handler)
            for method, path, handler in (
                ("POST", "/v1/billing/meter_events", self.meters.record),
                ("POST", "/v1/billing/meters", self.create_meter),
                ("GET", "/v1/billing/meters", lambda params: self._list("billing.meter", params)),
                ("GET", "/v1/billing/meters/{id}/event_summaries", self.event_summaries),
                ("POST", "/v1/customers", self.create_customer),
                ("GET", "/v1/customers/search", self.search_customers),
                ("GET", "/v1/customers/{id}", self.read_customer),
                ("POST", "/v1/customers/{id}", self.update_customer),
                ("DELETE", "/v1/customers/{id}", self.delete_customer),
                ("POST", "/v1/products", self.create_product),
                ("GET", "/v1/products/{id}", self._reader("product")),
                ("POST", "/v1/prices", self.create_price),
                ("GET", "/v1/prices", self.list_prices),
                ("GET", "/v1/prices/{id}", self._reader("price")),
                ("POST", "/v1/prices/{id}", self.update_price),
                ("POST", "/v1/subscriptions", self.billing.subscribe),
                ("GET", "/v1/subscriptions", self.list_subscriptions),
                ("GET", "/v1/subscriptions/{id}", self._reader("subscription")),
                ("POST", "/v1/subscriptions/{id}", self.update_subscription),
                ("GET", "/v1/invoices", self.list_invoices),
                ("GET", "/v1/invoices/{id}", self.read_invoice),
                ("POST", "/v1/invoices/{id}", self.update_invoice),
                ("GET", "/v1/invoices/{id}/lines", self.list_lines),
                ("POST", "/v1/invoices/{id}/finalize", self.finalize_invoice),
                ("POST", "/v1/invoices/{id}/pay", self.pay_invoice),
                ("POST", "/v1/invoices/{id}/void", self.void_invoice),
                ("POST", "/v1/invoiceitems", self.create_invoice_item),
                ("GET", "/v1/invoiceitems", self.list_invoice_items),
                ("POST", "/v1/billing_portal/sessions", self.create_portal_session),
                ("POST", "/v1/setup_intents", self.create_setup_intent),
                ("GET", "/v1/payment_methods/{id}", self._reader("payment_method")),
            )
        ]

    def call(self, method: str, path: str, params: Params) -> Thing:
        """Raises Refusal."""
        for wanted, pattern, handler in self._routes:
            match = pattern.fullmatch(path) if wanted == method else None
            if match:
                return handler(params, *match.groups())
        message = f"Unrecognized request URL ({method}: {path})."
        raise Refusal(404, message)

    def create_meter(self, params: Params) -> Thing:
        name = _needed(params, "event_name")
        if any(meter["event_name"] == name for meter in self.world.all("billing.meter")):
            raise Refusal(400, f"A meter with the event name {name!r} exists", param="event_name")
        formula = (params.get("default_aggregation") or {}).get("formula")
        if formula != "sum":
            raise Refusal(400, "The twin aggregates sums only", param="default_aggregation[formula]")
        return self.world.new(
            "billing.meter",
            event_name=name,
            display_name=_needed(params, "display_name"),
            status="active",
            default_aggregation={"formula": formula},
        )

    def event_summaries(self, params: Params, name: str) -> Thing:
        meter = self.world.get("billing.meter", name)
        customer = _needed(params, "customer")
        start, end = int(_needed(params, "start_time")), int(_needed(params, "end_time"))
        if start % 60 or end % 60:
            raise Refusal(400, "Times must align with minutes", param="start_time")
        step = 86_400 if params.get("value_grouping_window") == "day" else end - start
        spans = [(at, min(at + step, end)) for at in range(start, end, step)]
        totals = {span: self.meters.total(customer, meter["event_name"], *span) for span in spans}
        summaries = [
            {
                "id": f"mtrusg_{span[0]}_{span[1]}",
                "object": "billing.meter_event_summary",
                "aggregated_value": int(total) if total == int(total) else float(total),
                "start_time": span[0],
                "end_time": span[1],
                "meter": name,
                "livemode": self.world.livemode,
            }
            for span, total in totals.items()
            if total
        ]
        return _page(summaries, params, "/v1/billing/meters/summaries")

    def create_customer(self, params: Params) -> Thing:
        customer = self.world.new(
            "customer",
            name=params.get("name"),
            email=params.get("email") or None,
            metadata=params.get("metadata") or {},
            invoice_settings={"default_payment_method": None},
            balance=0,
        )
        self.world.announce("customer.created", customer)
        return customer

    def search_customers(self, params: Params) -> Thing:
        match = re.fullmatch(r"metadata\['(\w+)'\]:'([^']+)'", _needed(params, "query"))
        if match is None:
            raise Refusal(400, "The twin searches one member of metadata", param="query")
        found = [c for c in self.world.all("customer") if (c.get("metadata") or {}).get(match[1]) == match[2]]
        alive = [customer for customer in found if not customer.get("deleted")]
        return {**_listed(alive, "/v1/customers/search"), "object": "search_result"}

    def read_customer(self, params: Params, name: str) -> Thing:
        customer = self.world.objects.get(name)
        if customer and customer.get("deleted"):
            return {"id": name, "object": "customer", "deleted": True}
        return self.world.get("customer", name)

    def update_customer(self, params: Params, name: str) -> Thing:
        customer = self.world.get("customer", name)
        for member in ("name", "email"):
            if member in params:
                customer[member] = params[member]
        method = (params.get("invoice_settings") or {}).get("default_payment_method")
        if method:
            self.attach(customer, method)
        customer["metadata"] |= params.get("metadata") or {}
        self.world.announce("customer.updated", customer)
        return customer

    def attach(self, customer: Thing, name: str, last4: str = "4242") -> Thing:
        """A card as the customer's default; DECLINED is one that never pays."""
        method = self.world.new(
            "payment_method",
            type="card",
            customer=customer["id"],
            card={"brand": "visa", "last4": last4, "exp_month": 12, "exp_year": 2034},
            _declines=name == DECLINED,
        )
        customer["invoice_settings"] = {"default_payment_method": method["id"]}
        self.world.announce("payment_method.attached", method)
        return method

    def delete_customer(self, params: Params, name: str) -> Thing:
        customer = self.world.get("customer", name)
        customer["deleted"] = True
        for subscription in self.world.all("subscription"):
            if subscription["customer"] == name:
                subscription["status"] = "canceled"
        self.world.announce("customer.deleted", customer)
        return {"id": name, "object": "customer", "deleted": True}

    def create_product(self, params: Params) -> Thing:
        chosen = params.get("id")
        if chosen and chosen in self.world.objects:
            raise Refusal(400, "Product already exists.", code="resource_already_exists", param="id")
        own_id = {"id": chosen} if chosen else {}
        return self.world.new(
            "product",
            name=_needed(params, "name"),
            metadata=params.get("metadata") or {},
            active=True,
            **own_id,
        )

    def create_price(self, params: Params) -> Thing:
        product = self.world.get("product", _needed(params, "product"), param="product")
        recurring = {"interval": "month", "usage_type": "licensed", "meter": None, **params["recurring"]}
        if recurring["usage_type"] == "metered":
            self.world.get("billing.meter", recurring["meter"] or "", param="recurring[meter]")
        scheme = params.get("billing_scheme", "per_unit")
        amount = params.get("unit_amount_decimal") or params.get("unit_amount")
        if scheme == "per_unit" and amount is None:
            raise Refusal(400, "A price needs an amount", param="unit_amount")
        if amount is not None and abs(int(Decimal(amount).as_tuple().exponent)) > 12:  # noqa: PLR2004
            raise Refusal(400, "At most 12 decimal places", param="unit_amount_decimal")
        lookup_key = params.get("lookup_key")
        for other in self.world.all("price"):
            if lookup_key and other["lookup_key"] == lookup_key:
                if not truth(params.get("transfer_lookup_key")):
                    raise Refusal(400, f"A price uses the lookup key {lookup_key}", param="lookup_key")
                other["lookup_key"] = None
        price = self.world.new(
            "price",
            active=True,
            product=product["id"],
            currency=_needed(params, "currency"),
            nickname=params.get("nickname"),
            lookup_key=lookup_key,
            billing_scheme=scheme,
            tiers_mode=params.get("tiers_mode"),
            tiers=params.get("tiers"),
            transform_quantity=params.get("transform_quantity"),
            unit_amount_decimal=amount,
            recurring=recurring,
            metadata=params.get("metadata") or {},
        )
        price["type"] = "recurring"
        return price

    def list_prices(self, params: Params) -> Thing:
        wanted = params.get("lookup_keys") or []
        found = [price for price in self.world.all("price") if not wanted or price["lookup_key"] in wanted]
        active = params.get("active")
        return _listed([p for p in found if active is None or p["active"] == truth(active)], "/v1/prices")

    def update_price(self, params: Params, name: str) -> Thing:
        price = self.world.get("price", name)
        if "active" in params:
            price["active"] = truth(params["active"])
        self.world.announce("price.updated", price)
        return price

    def list_subscriptions(self, params: Params) -> Thing:
        found = [
            one
            for one in self.world.all("subscription")
            if one["customer"] == params.get("customer")
            and (params.get("status") == "all" or one["status"] != "canceled")
        ]
        return _listed(found, "/v1/subscriptions")

    def update_subscription(self, params: Params, name: str) -> Thing:
        subscription = self.world.get("subscription", name)
        if "cancel_at" in params:
            if int(params["cancel_at"]) <= self.world.now():
                raise Refusal(400, "cancel_at must be in the future", param="cancel_at")
            subscription["cancel_at"] = int(params["cancel_at"])
            for item in subscription["items"]["data"]:
                item["current_period_end"] = min(item["current_period_end"], subscription["cancel_at"])
        subscription["metadata"] |= params.get("metadata") or {}
        self.world.announce("customer.subscription.updated", subscription)
        return subscription

    def list_invoices(self, params: Params) -> Thing:
        customer, status = params.get("customer"), params.get("status")
        found = [
            self.billing.refresh(invoice)
            for invoice in self.world.all("invoice")
            if customer in {None, invoice["customer"]} and status in {None, invoice["status"]}
        ]
        return _listed(found, "/v1/invoices")

    def read_invoice(self, params: Params, name: str) -> Thing:
        return self.billing.refresh(self.world.get("invoice", name))

    def list_lines(self, params: Params, name: str) -> Thing:
        invoice = self.read_invoice(params, name)
        return _page(invoice["lines"]["data"], params, f"/v1/invoices/{name}/lines")

    def update_invoice(self, params: Params, name: str) -> Thing:
        invoice = self.world.get("invoice", name)
        if invoice["status"] != "draft" and "auto_advance" not in params:
            raise Refusal(400, "Only drafts can be edited", code="invoice_not_editable")
        if "auto_advance" in params:
            invoice["auto_advance"] = truth(params["auto_advance"])
        invoice["metadata"] |= params.get("metadata") or {}
        self.world.announce("invoice.updated", invoice)
        return invoice

    def finalize_invoice(self, params: Params, name: str) -> Thing:
        return self.billing.finalize(self.world.get("invoice", name))

    def pay_invoice(self, params: Params, name: str) -> Thing:
        invoice = self.world.get("invoice", name)
        if invoice["status"] != "open":
            raise Refusal(400, f"The invoice is {invoice['status']}", code="invoice_not_open")
        if not self.billing.charge(invoice):
            raise Refusal(402, "Your card was declined.", kind="card_error", code="card_declined")
        return invoice

    def void_invoice(self, params: Params, name: str) -> Thing:
        return self.billing.void(self.world.get("invoice", name))

    def create_invoice_item(self, params: Params) -> Thing:
        customer = self.world.get("customer", _needed(params, "customer"), param="customer")
        item = self.world.new(
            "invoiceitem",
            customer=customer["id"],
            amount=int(_needed(params, "amount")),
            currency=_needed(params, "currency"),
            description=params.get("description"),
            metadata=params.get("metadata") or {},
            invoice=None,
        )
        if params.get("invoice"):
            invoice = self.world.get("invoice", params["invoice"], param="invoice")
            if invoice["status"] != "draft":
                raise Refusal(400, "Only drafts can be edited", code="invoice_not_editable", param="invoice")
            self.billing.add_item(invoice, item)
        return item

    def list_invoice_items(self, params: Params) -> Thing:
        own = [item for item in self.world.all("invoiceitem") if item["customer"] == params.get("customer")]
        if truth(params.get("pending")):
            own = [item for item in own if item["invoice"] is None]
        return _page(own, params, "/v1/invoiceitems")

    def create_portal_session(self, params: Params) -> Thing:
        customer = self.world.get("customer", _needed(params, "customer"), param="customer")
        session = self.world.new(
            "billing_portal.session", customer=customer["id"], return_url=params.get("return_url")
        )
        session["url"] = f"https://billing.stripe.com/p/session/{session['id']}"
        return session

    def create_setup_intent(self, params: Params) -> Thing:
        customer = self.world.get("customer", _needed(params, "customer"), param="customer")
        intent = self.world.new(
            "setup_intent",
            customer=customer["id"],
            status="requires_payment_method",
            usage=params.get("usage", "off_session"),
        )
        intent["client_secret"] = f"{intent['id']}_secret_twin"
        return intent

    def _reader(self, kind: str) -> Callable[..., Thing]:
        def read(params: Params, name: str) -> Thing:
            return self.world.get(kind, name)

        return read

    def _list(self, kind: str, params: Params) -> Thing:
        return _page(self.world.all(kind), params, f"/v1/{kind}")


def _needed(params: Params, name: str) -> str:
    value = params.get(name)
    if value in {None, ""}:
        raise Refusal(400, f"Missing required param: {name}.", code="parameter_missing", param=name)
    return str(value)


def _page(things: list[Thing], params: Params, url: str) -> Thing:
    """Up to `limit` (10) things after `starting_after`, in the order they were made."""
    limit, after = int(params.get("limit", 10)), params.get("starting_after")
    start = next((at + 1 for at, thing in enumerate(things) if thing["id"] == after), 0)
    page = things[start : start + limit]
    return {**_listed(page, url), "has_more": len(things) > start + limit}


def _listed(things: list[Thing], url: str) -> Thing:
    return {"object": "list", "data": things, "has_more": False, "url": url}
