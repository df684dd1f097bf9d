"""What can be sold: meters with what was counted on them, products and prices."""

from decimal import Decimal

from partner_api.local.stripe_twin.forms import truth
from partner_api.local.stripe_twin.metering import Meters
from partner_api.local.stripe_twin.shapes import Params, listed, needed, page_of
from partner_api.local.stripe_twin.world import Refusal, Thing, World


class Catalog:
    def __init__(self, world: World, meters: Meters) -> None:
        self.world = world
        self.meters = meters

    def create_meter(self, params: Params) -> Thing:
        name = needed(params, "event_name")
        if any(meter["event_name"] == name for meter in self.world.all("billing.meter")):
            raise Refusal(400, f"A meter with the event name {name!r} exists", param="event_name")
        formula = (params.get("default_aggregation") or {}).get("formula")
        if formula != "sum":
            raise Refusal(400, "The twin aggregates sums only", param="default_aggregation[formula]")
        return self.world.new(
            "billing.meter",
            event_name=name,
            display_name=needed(params, "display_name"),
            status="active",
            default_aggregation={"formula": formula},
        )

    def event_summaries(self, params: Params, name: str) -> Thing:
        meter = self.world.get("billing.meter", name)
        customer = needed(params, "customer")
        start, end = int(needed(params, "start_time")), int(needed(params, "end_time"))
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
        return page_of(summaries, params, f"/v1/billing/meters/{name}/event_summaries")

    def create_product(self, params: Params) -> Thing:
        chosen = params.get("id")
        if chosen and chosen in self.world.objects:
            raise Refusal(400, "Product already exists.", code="resource_already_exists", param="id")
        own_id = {"id": chosen} if chosen else {}
        return self.world.new(
            "product",
            name=needed(params, "name"),
            metadata=params.get("metadata") or {},
            active=True,
            **own_id,
        )

    def create_price(self, params: Params) -> Thing:
        product = self.world.get("product", needed(params, "product"), param="product")
        recurring = {"interval": "month", "usage_type": "licensed", "meter": None, **params["recurring"]}
        if recurring["usage_type"] == "metered":
            self.world.get("billing.meter", recurring["meter"] or "", param="recurring[meter]")
        scheme = params.get("billing_scheme", "per_unit")
        amount = params.get("unit_amount_decimal") or params.get("unit_amount")
        if scheme == "per_unit" and amount is None:
            raise Refusal(400, "A price needs an amount", param="unit_amount")
        if amount is not None and abs(int(Decimal(amount).as_tuple().exponent)) > 12:  # noqa: PLR2004 - as Stripe says
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
            currency=needed(params, "currency"),
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
        return listed([p for p in found if active is None or p["active"] == truth(active)], "/v1/prices")

    def update_price(self, params: Params, name: str) -> Thing:
        price = self.world.get("price", name)
        if "active" in params:
            price["active"] = truth(params["active"])
        self.world.announce("price.updated", price)
        return price
