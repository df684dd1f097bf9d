"""Customers, their cards, and the two ways to let them enter one."""

import re
from typing import Final

from partner_api.local.stripe_twin.shapes import Params, listed, needed
from partner_api.local.stripe_twin.world import Refusal, Thing, World

# A payment method of this name is declined, as Stripe's own test card is.
DECLINED: Final = "pm_card_chargeDeclined"


class Customers:
    def __init__(self, world: World) -> None:
        self.world = world

    def create(self, params: Params) -> Thing:
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

    def search(self, params: Params) -> Thing:
        match = re.fullmatch(r"metadata\['(\w+)'\]:'([^']+)'", needed(params, "query"))
        if match is None:
            raise Refusal(400, "The twin searches one member of metadata", param="query")
        found = [c for c in self.world.all("customer") if (c.get("metadata") or {}).get(match[1]) == match[2]]
        alive = [customer for customer in found if not customer.get("deleted")]
        return {**listed(alive, "/v1/customers/search"), "object": "search_result"}

    def read(self, params: Params, name: str) -> Thing:
        customer = self.world.objects.get(name)
        if customer and customer.get("deleted"):
            return {"id": name, "object": "customer", "deleted": True}
        return self.world.get("customer", name)

    def update(self, params: Params, name: str) -> Thing:
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

    def detach(self, method: Thing) -> None:
        """The news of it names no customer any more, except as what changed."""
        customer = self.world.objects[method["customer"]]
        customer["invoice_settings"] = {"default_payment_method": None}
        method["customer"] = None
        self.world.announce("payment_method.detached", method, before={"customer": customer["id"]})

    def delete(self, params: Params, name: str) -> Thing:
        customer = self.world.get("customer", name)
        customer["deleted"] = True
        for subscription in self.world.all("subscription"):
            if subscription["customer"] == name:
                subscription |= {"status": "canceled", "ended_at": self.world.now()}
        self.world.announce("customer.deleted", customer)
        return {"id": name, "object": "customer", "deleted": True}

    def create_portal_session(self, params: Params) -> Thing:
        customer = self.world.get("customer", needed(params, "customer"), param="customer")
        session = self.world.new(
            "billing_portal.session", customer=customer["id"], return_url=params.get("return_url")
        )
        session["url"] = f"https://billing.stripe.com/p/session/{session['id']}"
        return session

    def create_setup_intent(self, params: Params) -> Thing:
        customer = self.world.get("customer", needed(params, "customer"), param="customer")
        intent = self.world.new(
            "setup_intent",
            customer=customer["id"],
            status="requires_payment_method",
            usage=params.get("usage", "off_session"),
        )
        intent["client_secret"] = f"{intent['id']}_secret_twin"
        return intent
