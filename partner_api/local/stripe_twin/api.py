"""Which call is which, and what those on invoices check, change, announce and answer."""

import re
from collections.abc import Callable

from partner_api.local.stripe_twin.catalog import Catalog
from partner_api.local.stripe_twin.customers import Customers
from partner_api.local.stripe_twin.forms import truth
from partner_api.local.stripe_twin.invoicing import Billing
from partner_api.local.stripe_twin.metering import Meters
from partner_api.local.stripe_twin.shapes import Params, listed, needed, page_of
from partner_api.local.stripe_twin.subscriptions import Subscriptions
from partner_api.local.stripe_twin.world import Refusal, Thing, World


class Api:
    def __init__(self, world: World, meters: Meters, billing: Billing) -> None:
        self.world = world
        self.meters = meters
        self.billing = billing
        self.customers = Customers(world)
        self.catalog = Catalog(world, meters)
        self.subscriptions = Subscriptions(world, billing)
        self._routes: list[tuple[str, re.Pattern[str], Callable[..., Thing]]] = [
            (method, re.compile(path.replace("{id}", r"([\w.:-]+)")), handler)
            for method, path, handler in (
                ("POST", "/v1/billing/meter_events", self.meters.record),
                ("POST", "/v1/billing/meters", self.catalog.create_meter),
                ("GET", "/v1/billing/meters", self.list_meters),
                ("GET", "/v1/billing/meters/{id}/event_summaries", self.catalog.event_summaries),
                ("POST", "/v1/customers", self.customers.create),
                ("GET", "/v1/customers/search", self.customers.search),
                ("GET", "/v1/customers/{id}", self.customers.read),
                ("POST", "/v1/customers/{id}", self.customers.update),
                ("DELETE", "/v1/customers/{id}", self.customers.delete),
                ("POST", "/v1/products", self.catalog.create_product),
                ("GET", "/v1/products/{id}", self._reader("product")),
                ("POST", "/v1/prices", self.catalog.create_price),
                ("GET", "/v1/prices", self.catalog.list_prices),
                ("GET", "/v1/prices/{id}", self._reader("price")),
                ("POST", "/v1/prices/{id}", self.catalog.update_price),
                ("POST", "/v1/subscriptions", self.subscriptions.create),
                ("GET", "/v1/subscriptions", self.subscriptions.list),
                ("GET", "/v1/subscriptions/{id}", self._reader("subscription")),
                ("POST", "/v1/subscriptions/{id}", self.subscriptions.update),
                ("DELETE", "/v1/subscriptions/{id}", self.subscriptions.cancel),
                ("GET", "/v1/invoices", self.list_invoices),
                ("GET", "/v1/invoices/{id}", self.read_invoice),
                ("POST", "/v1/invoices/{id}", self.update_invoice),
                ("DELETE", "/v1/invoices/{id}", self.delete_invoice),
                ("GET", "/v1/invoices/{id}/lines", self.list_lines),
                ("POST", "/v1/invoices/{id}/finalize", self.finalize_invoice),
                ("POST", "/v1/invoices/{id}/pay", self.pay_invoice),
                ("POST", "/v1/invoices/{id}/void", self.void_invoice),
                ("POST", "/v1/invoiceitems", self.create_invoice_item),
                ("GET", "/v1/invoiceitems", self.list_invoice_items),
                ("POST", "/v1/billing_portal/sessions", self.customers.create_portal_session),
                ("POST", "/v1/setup_intents", self.customers.create_setup_intent),
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

    def list_meters(self, params: Params) -> Thing:
        return page_of(self.world.all("billing.meter"), params, "/v1/billing/meters")

    def list_invoices(self, params: Params) -> Thing:
        customer, status = params.get("customer"), params.get("status")
        found = [
            self.billing.refresh(invoice)
            for invoice in self.world.all("invoice")
            if customer in {None, invoice["customer"]} and status in {None, invoice["status"]}
        ]
        return listed(found, "/v1/invoices")

    def read_invoice(self, params: Params, name: str) -> Thing:
        return self.billing.refresh(self.world.get("invoice", name))

    def list_lines(self, params: Params, name: str) -> Thing:
        invoice = self.read_invoice(params, name)
        return page_of(invoice["lines"]["data"], params, f"/v1/invoices/{name}/lines")

    def update_invoice(self, params: Params, name: str) -> Thing:
        invoice = self.world.get("invoice", name)
        if invoice["status"] != "draft" and "auto_advance" not in params:
            raise Refusal(400, "Only drafts can be edited", code="invoice_not_editable")
        if "auto_advance" in params:
            invoice["auto_advance"] = truth(params["auto_advance"])
        invoice["metadata"] |= params.get("metadata") or {}
        self.world.announce("invoice.updated", invoice)
        return invoice

    def delete_invoice(self, params: Params, name: str) -> Thing:
        """A draft only; what stood on it waits for the next one."""
        invoice = self.world.get("invoice", name)
        if invoice["status"] != "draft":
            raise Refusal(400, "Only drafts can be deleted", code="invoice_not_editable")
        for item in self.world.all("invoiceitem"):
            if item["invoice"] == name:
                item["invoice"] = None
        self.world.remove(invoice)
        self.world.announce("invoice.deleted", invoice)
        return {"id": name, "object": "invoice", "deleted": True}

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
        customer = self.world.get("customer", needed(params, "customer"), param="customer")
        item = self.world.new(
            "invoiceitem",
            customer=customer["id"],
            amount=int(needed(params, "amount")),
            currency=needed(params, "currency"),
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
        since = int((params.get("created") or {}).get("gte", 0))
        own = [item for item in own if item["created"] >= since]
        if truth(params.get("pending")):
            own = [item for item in own if item["invoice"] is None]
        return page_of(own, params, "/v1/invoiceitems")

    def _reader(self, kind: str) -> Callable[..., Thing]:
        def read(params: Params, name: str) -> Thing:
            return self.world.get(kind, name)

        return read
