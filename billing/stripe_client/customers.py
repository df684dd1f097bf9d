"""Partners as Stripe's customers, and how each may keep its cards."""

from collections.abc import Callable
from typing import Any

from billing import stripe_facts
from billing.stripe_client.sdk import call, made, v1
from billing.stripe_facts import CardFacts, CustomerFacts


def create(partner_id: str, *, name: str, email: str, idempotency_key: str) -> CustomerFacts:
    """Look for it first (`find`). Raises StripeFault."""
    params: dict[str, Any] = {"name": name, "metadata": {"partner": partner_id}}
    if email:
        params["email"] = email
    return stripe_facts.read_customer(made(v1().customers.create, params, idempotency_key))


def find(partner_id: str) -> CustomerFacts | None:
    """By our id in its metadata. Stripe's search may not see what is younger than a minute."""
    query = f"metadata['partner']:'{partner_id}'"
    found = call(lambda: v1().customers.search({"query": query})).data
    return stripe_facts.read_customer(found[0]) if found else None


def read(customer_id: str) -> CustomerFacts:
    """Raises Gone."""
    return stripe_facts.read_customer(call(lambda: v1().customers.retrieve(customer_id)))


def card(payment_method_id: str) -> CardFacts:
    """What may be shown of a payment method; of one that is no card its kind stands for the brand."""
    return stripe_facts.read_card(call(lambda: v1().payment_methods.retrieve(payment_method_id)))


def portal_session(customer_id: str, *, return_url: str, idempotency_key: str | None) -> str:
    """A link to Stripe's pages where the partner keeps its cards; it opens once and soon expires.

    Raises StripeFault.
    """
    params: Any = {"customer": customer_id, "return_url": return_url}
    return str(_made(v1().billing_portal.sessions.create, params, idempotency_key).url)


def setup_intent(customer_id: str, *, idempotency_key: str | None) -> str:
    """The client secret with which Stripe's own form takes a payment method for later. Raises StripeFault."""
    params: Any = {
        "customer": customer_id,
        "usage": "off_session",
        "automatic_payment_methods": {"enabled": True},
    }
    return str(_made(v1().setup_intents.create, params, idempotency_key).client_secret)


def _made(create: Callable[..., Any], params: Any, idempotency_key: str | None) -> Any:
    """Once for each key, where there is one. After a 5xx it is made anew, which costs nothing."""
    if idempotency_key is None:
        return call(lambda: create(params))
    return made(create, params, idempotency_key)
