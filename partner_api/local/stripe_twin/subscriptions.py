"""Subscriptions: how they begin, and how they end: later, at once, or not after all."""

import datetime as dt
from decimal import Decimal

from partner_api.local.stripe_twin.cycles import following, preceding, rounded
from partner_api.local.stripe_twin.invoicing import Billing
from partner_api.local.stripe_twin.shapes import Params, page_of
from partner_api.local.stripe_twin.world import Refusal, Thing, World


class Subscriptions:
    def __init__(self, world: World, billing: Billing) -> None:
        self.world = world
        self.billing = billing

    def create(self, params: Params) -> Thing:
        """Raises Refusal for a price that is gone."""
        customer = self.world.get("customer", params.get("customer", ""), param="customer")
        start = int(params.get("backdate_start_date") or self.world.now())
        if start > self.world.now():
            raise Refusal(400, "backdate_start_date must be in the past", param="backdate_start_date")
        config = params.get("billing_cycle_anchor_config") or {}
        day = int(config.get("day_of_month") or dt.datetime.fromtimestamp(start, dt.UTC).day)
        end = following(day, start)
        self._refuse_without_card(params, customer)
        subscription = self.world.new(
            "subscription",
            customer=customer["id"],
            status="active",
            collection_method=params.get("collection_method", "charge_automatically"),
            days_until_due=params.get("days_until_due"),
            metadata=params.get("metadata") or {},
            billing_cycle_anchor=end,
            start_date=start,
            cancel_at=int(params["cancel_at"]) if params.get("cancel_at") else None,
            ended_at=None,
            _day=day,
        )
        end = min(end, subscription["cancel_at"] or end)
        items = [self._item(subscription, item, start, end) for item in params.get("items") or []]
        if not items:
            raise Refusal(400, "A subscription needs items", param="items")
        subscription["items"] = {"object": "list", "data": items, "has_more": False}
        self.world.announce("customer.subscription.created", subscription)
        has_fee = any(item["price"]["recurring"]["usage_type"] == "licensed" for item in items)
        # Without prorations a part of a period, up to the first anchor, is free.
        if has_fee and params.get("proration_behavior") != "none":
            whole = subscription["billing_cycle_anchor"]
            before = preceding(day, whole)
            invoice = self.billing.draft(subscription, start, start, "subscription_create")
            for item in items:
                self.billing.licensed_line(invoice, item, (start, end), share=(end - start, whole - before))
            self.billing.settle_totals(invoice)
            self.billing.finalize(invoice)
        return subscription

    def list(self, params: Params) -> Thing:
        found = [
            one
            for one in self.world.all("subscription")
            if one["customer"] == params.get("customer")
            and (params.get("status") == "all" or one["status"] != "canceled")
        ]
        return page_of(found, params, "/v1/subscriptions")

    def update(self, params: Params, name: str) -> Thing:
        subscription = self.world.get("subscription", name)
        if subscription["status"] == "canceled":
            raise Refusal(
                400, "A canceled subscription can only update its cancellation_details and metadata."
            )
        if "cancel_at" in params:
            at = int(params["cancel_at"]) if params["cancel_at"] else None
            if at is not None and at <= self.world.now():
                raise Refusal(400, "cancel_at must be in the future", param="cancel_at")
            subscription["cancel_at"] = at
            is_prorated = params.get("proration_behavior", "create_prorations") != "none"
            for item in subscription["items"]["data"]:
                self._bound(subscription, item, is_prorated=is_prorated)
        subscription["metadata"] |= params.get("metadata") or {}
        self.world.announce("customer.subscription.updated", subscription)
        return subscription

    def cancel(self, params: Params, name: str) -> Thing:
        """At once; an end that was set for later stays as it was."""
        subscription = self.world.get("subscription", name)
        subscription |= {"status": "canceled", "ended_at": self.world.now()}
        self.world.announce("customer.subscription.deleted", subscription)
        return subscription

    def _refuse_without_card(self, params: Params, customer: Thing) -> None:
        """A first invoice that Stripe is to collect itself needs something to collect it from."""
        prices = [self.world.objects.get(item.get("price", "")) for item in params.get("items") or []]
        is_due = any(price and price["recurring"]["usage_type"] == "licensed" for price in prices)
        is_due = is_due and params.get("proration_behavior") != "none"
        is_sent = params.get("collection_method") == "send_invoice"
        has_card = (customer.get("invoice_settings") or {}).get("default_payment_method")
        if is_due and not is_sent and not has_card:
            message = "This customer has no attached payment source or default payment method."
            raise Refusal(400, message, code="resource_missing")

    def _item(self, subscription: Thing, params: Params, start: int, end: int) -> Thing:
        price = self.world.get("price", params.get("price", ""), param="items[price]")
        if not price["active"]:
            raise Refusal(400, f"The price {price['id']} is not active", code="price_inactive", param="items")
        return self.world.new(
            "subscription_item",
            subscription=subscription["id"],
            price=price,
            quantity=int(params.get("quantity", 1)),
            current_period_start=start,
            current_period_end=end,
        )

    def _bound(self, subscription: Thing, item: Thing, *, is_prorated: bool) -> None:
        """Its period ends with the subscription; a fee for days it gains or loses becomes an invoice item."""
        whole_end = following(subscription["_day"], item["current_period_start"])
        end = min(whole_end, subscription["cancel_at"] or whole_end)
        days = end - item["current_period_end"]
        item["current_period_end"] = end
        price = item["price"]
        if not days or not is_prorated or price["recurring"]["usage_type"] != "licensed":
            return
        full = Decimal(price["unit_amount_decimal"]) * item["quantity"]
        self.world.new(
            "invoiceitem",
            customer=subscription["customer"],
            amount=rounded(full * days / (whole_end - preceding(subscription["_day"], whole_end))),
            currency=price["currency"],
            description=f"{'Remaining' if days > 0 else 'Unused'} time on {price['nickname']}",
            metadata={},
            invoice=None,
        )
