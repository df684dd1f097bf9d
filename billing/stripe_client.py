"""The only place that speaks to Stripe: one call a function, typed facts back, faults by what they mean.

Every call that makes something has an idempotency key of ours, so that a retry of a task is the same
call to Stripe. The SDK repeats what a network or a 5xx broke; 429 is left to the task, which can wait.
"""

import datetime as dt
import functools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal, TypeVar

import requests
import stripe
from django.conf import settings

from billing import pacing, stripe_facts
from billing.stripe_facts import (
    CardFacts,
    CustomerFacts,
    InvoiceFacts,
    MeterEvent,
    PriceFacts,
    PriceTerms,
    SubscriptionFacts,
    WebhookFacts,
)

API_VERSION: Final = "2026-10-28.endive"
IDENTIFIER_MAX: Final = 100
_PAGE: Final = 100
T = TypeVar("T")


class StripeFault(Exception):
    """Stripe did not do it, or did not say so. `code` is short and stable, the message is Stripe's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Unavailable(StripeFault):
    """No answer, or a 5xx: whether it was done is not known. Ask again, under the same identity.

    `is_replayed` is True for the 5xx of an earlier call, repeated for its idempotency key.
    """

    def __init__(self, code: str, message: str, *, is_replayed: bool = False) -> None:
        super().__init__(code, message)
        self.is_replayed = is_replayed


class Busy(StripeFault):
    """429: too fast, or another call holds the lock. It was not done."""


class Refused(StripeFault):
    """A 4xx: it was not done, and the same call won't be. `param` names what was wrong."""

    def __init__(self, code: str, message: str, param: str = "") -> None:
        super().__init__(code, message)
        self.param = param


class Gone(Refused):
    """It names something that Stripe does not have (any more)."""


class KeyReused(Refused):
    """Our idempotency key was used for another call: a fault of ours."""


class Misconfigured(StripeFault):
    """Our secret key is wrong or may not do this."""


class BadSignature(Exception):
    """A webhook that none of our secrets signed, or too long ago."""


def is_configured() -> bool:
    return bool(settings.STRIPE_SECRET_KEY)


def is_livemode() -> bool:
    """The mode of our key; events of the other one are not ours."""
    return str(settings.STRIPE_SECRET_KEY).startswith(("sk_live_", "rk_live_"))


def send_meter_event(event: MeterEvent, *, idempotency_key: str) -> Literal["accepted", "duplicate"]:
    """Both answers mean that Stripe has it, once. Raises StripeFault."""
    pacing.METER_EVENTS.wait()
    try:
        _meter_event(event, idempotency_key)
    except Unavailable as fault:
        if not fault.is_replayed:
            raise
        # Stripe repeats a 5xx for a key, done or not. Under another key it must look; the event's
        # identifier still keeps it to one.
        try:
            pacing.METER_EVENTS.wait()
            _meter_event(event, f"{idempotency_key}:{int(time.time())}")
        except _Duplicate:
            return "duplicate"
    except _Duplicate:
        return "duplicate"
    return "accepted"


def create_customer(partner_id: str, *, name: str, email: str, idempotency_key: str) -> CustomerFacts:
    """Raises StripeFault."""
    params: dict[str, Any] = {"name": name, "metadata": {"partner": partner_id}}
    if email:
        params["email"] = email
    return stripe_facts.read_customer(_call(lambda: _v1().customers.create(params, _key(idempotency_key))))


def find_customer(partner_id: str) -> CustomerFacts | None:
    """By our id in its metadata. Stripe's search may not see what is younger than a minute."""
    query = f"metadata['partner']:'{partner_id}'"
    found = _call(lambda: _v1().customers.search({"query": query})).data
    return stripe_facts.read_customer(found[0]) if found else None


def customer(customer_id: str) -> CustomerFacts:
    """Raises Gone."""
    return stripe_facts.read_customer(_call(lambda: _v1().customers.retrieve(customer_id)))


def card(payment_method_id: str) -> CardFacts | None:
    """What may be shown of a card; None for another kind of payment method."""
    method = _call(lambda: _v1().payment_methods.retrieve(payment_method_id))
    if method.card is None:
        return None
    expires = f"{method.card.exp_year}-{method.card.exp_month:02}"
    return CardFacts(method.card.brand, method.card.last4 or "", expires)


def meters() -> dict[str, str]:
    """Event name → id of every active meter."""
    listed = _call(lambda: list(_v1().billing.meters.list({"limit": _PAGE}).auto_paging_iter()))
    return {meter.event_name: meter.id for meter in listed if meter.status == "active"}


def create_meter(event_name: str, display_name: str, *, idempotency_key: str) -> str:
    params: Any = {
        "event_name": event_name,
        "display_name": display_name,
        "default_aggregation": {"formula": "sum"},
    }
    return str(_call(lambda: _v1().billing.meters.create(params, _key(idempotency_key))).id)


def meter_total(meter: str, customer_id: str, start: dt.datetime, end: dt.datetime) -> int:
    """What aggregation has seen between two whole minutes; it trails behind the events."""
    params: Any = {
        "customer": customer_id,
        "start_time": int(start.timestamp()),
        "end_time": int(end.timestamp()),
        "limit": _PAGE,
    }
    listed = _call(lambda: list(_v1().billing.meters.event_summaries.list(meter, params).auto_paging_iter()))
    return sum(int(summary.aggregated_value) for summary in listed)


def meter_days(meter: str, customer_id: str, start: dt.datetime, end: dt.datetime) -> dict[dt.date, int]:
    """The same by day (UTC), between two midnights; days without events are missing."""
    params: Any = {
        "customer": customer_id,
        "start_time": int(start.timestamp()),
        "end_time": int(end.timestamp()),
        "value_grouping_window": "day",
        "limit": _PAGE,
    }
    listed = _call(lambda: list(_v1().billing.meters.event_summaries.list(meter, params).auto_paging_iter()))
    days = {stripe_facts.moment_of(one.start_time).date(): int(one.aggregated_value) for one in listed}
    return {day: total for day, total in days.items() if total}


def find_invoice_item(customer_id: str, entry_id: str) -> str | None:
    """The item that was made of an entry and is on no invoice yet."""
    params: Any = {"customer": customer_id, "pending": True, "limit": _PAGE}
    listed = _call(lambda: list(_v1().invoice_items.list(params).auto_paging_iter()))
    return next(
        (one.id for one in listed if stripe_facts.metadata_of(one.to_dict()).get("entry") == entry_id), None
    )


def ensure_product(product_id: str, *, name: str, metadata: dict[str, str]) -> bool:
    """A product of an id that we choose. True when it is new."""
    try:
        _call(lambda: _v1().products.retrieve(product_id))
    except Gone:
        params: Any = {"id": product_id, "name": name, "metadata": metadata}
        try:
            _call(lambda: _v1().products.create(params))
        except Refused as refused:
            if refused.code != "resource_already_exists":
                raise
            return False
        return True
    return False


def find_price(lookup_key: str) -> PriceFacts | None:
    """The active price with this lookup key."""
    params: Any = {"lookup_keys": [lookup_key], "active": True}
    found = _call(lambda: _v1().prices.list(params)).data
    if not found:
        return None
    facts = found[0].to_dict()
    terms = stripe_facts.metadata_of(facts).get("terms", "")
    return PriceFacts(facts["id"], facts["active"], facts["lookup_key"] or "", terms)


def create_price(terms: PriceTerms, *, idempotency_key: str, marker: str) -> str:
    """Licensed without a meter; one tier is a plain price. Takes the lookup key from an older price."""
    recurring: dict[str, Any] = {"interval": "month", "usage_type": "licensed"}
    if terms.meter:
        recurring |= {"usage_type": "metered", "meter": terms.meter}
    params: dict[str, Any] = {
        "product": terms.product,
        "currency": terms.currency.lower(),
        "nickname": terms.nickname,
        "lookup_key": terms.lookup_key,
        "transfer_lookup_key": True,
        "recurring": recurring,
        "metadata": {"terms": marker},
    }
    if len(terms.tiers) == 1:
        params["unit_amount_decimal"] = format(terms.tiers[0][1], "f")
    else:
        params |= {"billing_scheme": "tiered", "tiers_mode": "graduated"}
        params["tiers"] = [
            {"up_to": "inf" if upper is None else upper, "unit_amount_decimal": format(amount, "f")}
            for upper, amount in terms.tiers
        ]
    return str(_call(lambda: _v1().prices.create(params, _key(idempotency_key))).id)


def subscriptions(customer_id: str) -> list[SubscriptionFacts]:
    """Those that have not ended."""
    params: Any = {"customer": customer_id, "limit": _PAGE}
    listed = _call(lambda: list(_v1().subscriptions.list(params).auto_paging_iter()))
    return [stripe_facts.read_subscription(one) for one in listed]


def create_subscription(
    customer_id: str,
    *,
    contract: str,
    prices: list[str],
    starts_at: dt.datetime,
    anchor_day: int,
    days_until_due: int,
    idempotency_key: str,
) -> SubscriptionFacts:
    """From a day on, with periods that begin at midnight UTC of the anchor day."""
    params: dict[str, Any] = {
        "customer": customer_id,
        "items": [{"price": price} for price in prices],
        "backdate_start_date": int(starts_at.timestamp()),
        "billing_cycle_anchor_config": {
            "day_of_month": anchor_day,
            "hour": 0,
            "minute": 0,
            "second": 0,
        },
        "proration_behavior": "create_prorations",
        "metadata": {"contract": contract},
    }
    if days_until_due:
        params |= {"collection_method": "send_invoice", "days_until_due": days_until_due}
    made = _call(lambda: _v1().subscriptions.create(params, _key(idempotency_key)))
    return stripe_facts.read_subscription(made)


def end_subscription(subscription_id: str, at: dt.datetime, *, idempotency_key: str) -> None:
    params: Any = {"cancel_at": int(at.timestamp()), "proration_behavior": "create_prorations"}
    _call(lambda: _v1().subscriptions.update(subscription_id, params, _key(idempotency_key)))


def invoice(invoice_id: str) -> InvoiceFacts:
    """As it is now, with all its lines. Raises Gone."""
    found = _call(lambda: _v1().invoices.retrieve(invoice_id))
    params: Any = {"limit": _PAGE}
    lines = _call(lambda: list(_v1().invoices.line_items.list(invoice_id, params).auto_paging_iter()))
    return stripe_facts.read_invoice(found, lines)


def hold_invoice(invoice_id: str, *, idempotency_key: str) -> None:
    """Stripe will not finalize it by itself."""
    params: Any = {"auto_advance": False}
    _call(lambda: _v1().invoices.update(invoice_id, params, _key(idempotency_key)))


def release_invoice(invoice_id: str, *, idempotency_key: str) -> None:
    """Finalizes it now, with what aggregation has seen, and lets Stripe collect it."""
    params: Any = {"auto_advance": True}
    _call(lambda: _v1().invoices.finalize_invoice(invoice_id, params, _key(idempotency_key)))


def create_invoice_item(
    customer_id: str,
    *,
    amount: int,
    currency: str,
    description: str,
    metadata: dict[str, str],
    idempotency_key: str,
    invoice_id: str = "",
) -> str:
    """On a draft, or else on the next invoice. `amount` in minor units, negative for a credit."""
    params: dict[str, Any] = {
        "customer": customer_id,
        "amount": amount,
        "currency": currency.lower(),
        "description": description,
        "metadata": metadata,
    }
    if invoice_id:
        params["invoice"] = invoice_id
    return str(_call(lambda: _v1().invoice_items.create(params, _key(idempotency_key))).id)


def portal_session(customer_id: str, *, return_url: str) -> str:
    """A link to Stripe's pages where the partner keeps its cards; it opens once and soon expires."""
    params: Any = {"customer": customer_id, "return_url": return_url}
    return str(_call(lambda: _v1().billing_portal.sessions.create(params)).url)


def setup_intent(customer_id: str) -> str:
    """The client secret with which Stripe's own form takes a payment method for later."""
    params: Any = {
        "customer": customer_id,
        "usage": "off_session",
        "automatic_payment_methods": {"enabled": True},
    }
    return str(_call(lambda: _v1().setup_intents.create(params)).client_secret)


def read_webhook(body: bytes, signature: str) -> WebhookFacts:
    """Verified against each of our secrets. Raises BadSignature, ValueError for a body that is no event."""
    for secret in settings.STRIPE_WEBHOOK_SECRETS:
        try:
            event = _client().construct_event(
                body, signature, secret, tolerance=settings.STRIPE_WEBHOOK_TOLERANCE_SECONDS
            )
        except stripe.SignatureVerificationError:
            continue
        except (IndexError, UnicodeDecodeError) as error:
            raise BadSignature from error
        return stripe_facts.read_event(event)
    raise BadSignature


# --- below: the SDK ---------------------------------------------------------------------------


class _Duplicate(Exception):
    """A meter event that Stripe has already."""


def _meter_event(event: MeterEvent, key: str) -> None:
    payload = {"stripe_customer_id": event.customer, "value": str(event.value), **dict(event.dimensions)}
    params: Any = {
        "event_name": event.event_name,
        "identifier": event.identifier,
        "timestamp": event.timestamp,
        "payload": payload,
    }
    try:
        with _faults():
            _v1().billing.meter_events.create(params, {"idempotency_key": key})
    except Refused as refused:
        is_final = _header(refused.__cause__, "stripe-should-retry") == "false"
        if is_final and "already exists" in refused.message:
            raise _Duplicate from refused
        raise


def _call(run: Callable[[], T]) -> T:
    pacing.CALLS.wait()
    with _faults():
        return run()


@contextmanager
def _faults() -> Iterator[None]:
    """The SDK's exceptions as ours."""
    try:
        yield
    except stripe.RateLimitError as error:
        body: Any = error.json_body or {}
        code = (body.get("error") or {}).get("code")
        raise Busy(code or "rate_limit", _message(error)) from error
    except stripe.IdempotencyError as error:
        raise KeyReused("idempotency_error", _message(error)) from error
    except stripe.InvalidRequestError as error:
        kind = Gone if error.code == "resource_missing" else Refused
        raise kind(error.code or "invalid_request", _message(error), error.param or "") from error
    except stripe.CardError as error:
        raise Refused(error.code or "card_error", _message(error), error.param or "") from error
    except (stripe.AuthenticationError, stripe.PermissionError) as error:
        raise Misconfigured("stripe_key_refused", _message(error)) from error
    except stripe.APIConnectionError as error:
        raise Unavailable("no_answer", type(error.__cause__ or error).__name__) from error
    except stripe.StripeError as error:
        is_replayed = _header(error, "Idempotent-Replayed") == "true"
        code = f"status_{error.http_status}"
        raise Unavailable(code, _message(error), is_replayed=is_replayed) from error


def _header(error: object, name: str) -> str:
    headers: Any = error.headers if isinstance(error, stripe.StripeError) else None
    return str(headers.get(name, "")) if headers else ""


def _message(error: stripe.StripeError) -> str:
    return str(error.user_message or error)[:400]


def _v1() -> Any:
    return _client().v1


def _client() -> stripe.StripeClient:
    return _client_of(
        settings.STRIPE_SECRET_KEY,
        settings.STRIPE_API_BASE,
        settings.STRIPE_METER_EVENTS_BASE,
        settings.STRIPE_TIMEOUT_SECONDS,
        settings.STRIPE_MAX_NETWORK_RETRIES,
    )


@functools.lru_cache(maxsize=4)
def _client_of(key: str, api: str, meter_events: str, timeout: float, retries: int) -> stripe.StripeClient:
    stripe.enable_telemetry = False
    # The SDK tells of each call at INFO, with the ids of customers in the addresses.
    logging.getLogger("stripe").setLevel(logging.WARNING)
    return stripe.StripeClient(
        key,
        stripe_version=API_VERSION,
        base_addresses={"api": api, "meter_events": meter_events},
        http_client=_Http(timeout=timeout),
        max_network_retries=retries,
    )


class _Http(stripe.RequestsClient):
    """The SDK's own, without proxies, .netrc or CA bundles of the environment: the calls carry our key."""

    def _request_internal(self, *args: Any, **kwargs: Any) -> Any:
        if getattr(self._thread_local, "session", None) is None:
            session = requests.Session()
            session.trust_env = False
            self._thread_local.session = session
        return super()._request_internal(*args, **kwargs)


def _key(idempotency_key: str) -> Any:
    return {"idempotency_key": idempotency_key}
