"""Stripe's webhooks coming in, and the links by which a partner gives Stripe a payment method."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

import structlog
from django.conf import settings
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from kombu.exceptions import OperationalError
from pydantic import BaseModel, Field
from rest_framework.request import Request
from rest_framework.response import Response

from billing import stripe_client, stripe_events
from billing.models import StripeCustomer, StripeEvent
from billing.stripe_client import StripeFault, customers
from keys.authentication import PartnerRequest
from keys.permissions import PUBLIC
from partner_api import broker
from partner_api.http import idempotency
from partner_api.http.negotiation import AnyAccept
from partner_api.http.problems import Problem
from partner_api.http.view import ApiView

log = structlog.get_logger(__name__)

MAX_BYTES: Final = 1024 * 1024
# How Stripe says that another call with the same key has not ended.
_RUNNING: Final = "status_409"


class Received(BaseModel):
    received: bool = Field(description="Always true: the event is stored.")


class PortalSession(BaseModel):
    url: str = Field(description="Opens once, and only for some minutes.")


class SetupIntent(BaseModel):
    client_secret: str = Field(description="For Stripe's own form, in the browser of the one who pays.")


class StripeWebhook(ApiView):
    scopes: ClassVar = {"POST": PUBLIC}
    problems: ClassVar = {"POST": ("invalid_signature", "payload_too_large", "bad_request")}
    authentication_classes = []
    content_negotiation_class = AnyAccept

    @extend_schema(
        operation_id="receive_stripe_webhook",
        summary="Webhooks of Stripe",
        description="For Stripe only. The signature is that of the raw body; an event is stored once.",
        parameters=[
            OpenApiParameter("Stripe-Signature", OpenApiTypes.STR, OpenApiParameter.HEADER, required=True)
        ],
        request={"application/json": OpenApiTypes.OBJECT},
        responses={200: Received},
        tags=["Billing"],
    )
    def post(self, request: Request) -> Response:
        body = _raw_body(request)
        try:
            event, is_new = stripe_events.receive(body, request.headers.get("Stripe-Signature", ""))
        except stripe_client.BadSignature as error:
            detail = "The Stripe-Signature header does not fit the body, or is too old."
            raise Problem("invalid_signature", detail) from error
        except (ValueError, KeyError, TypeError) as error:
            raise Problem("bad_request", "The body is not an event of Stripe's.") from error
        if is_new and event.state == StripeEvent.State.WAITING:
            _hint(event.pk)
        return Response({"received": True})


class MadeAtStripe(ApiView):
    """Stripe is asked before the transaction that keeps the answer, under a key made of the client's own:
    should this process die in between, the same request is the same call to Stripe."""

    scopes: ClassVar = {"POST": "billing:read"}
    problems: ClassVar = {"POST": ("forbidden", "payments_not_set_up", "payments_unavailable")}
    idempotent: ClassVar = ("POST",)
    parser_classes = []

    def prepare(self, request: PartnerRequest) -> None:
        self.customer_id = _customer_of(request).customer_id

    @contextmanager
    def around(self, request: PartnerRequest) -> Iterator[None]:
        key = idempotency.key_elsewhere(request, self.idempotency_scope(request))
        try:
            self.made = self.make(key)
        except StripeFault as fault:
            raise _problem(fault) from fault
        yield

    def make(self, idempotency_key: str | None) -> str:
        """Raises StripeFault."""
        raise NotImplementedError


class BillingPortalSession(MadeAtStripe):
    @extend_schema(
        operation_id="create_portal_session",
        summary="Open Stripe's customer portal",
        description="A link to Stripe's own pages, where payment methods and invoices are kept.",
        request=None,
        responses={200: PortalSession},
        tags=["Billing"],
    )
    def post(self, request: PartnerRequest) -> Response:
        return Response({"url": self.made}, headers={"Cache-Control": "no-store"})

    def make(self, idempotency_key: str | None) -> str:
        return customers.portal_session(
            self.customer_id,
            return_url=settings.STRIPE_PORTAL_RETURN_URL,
            idempotency_key=idempotency_key,
        )


class BillingSetupIntent(MadeAtStripe):
    @extend_schema(
        operation_id="create_setup_intent",
        summary="Begin to add a payment method",
        description="The secret with which Stripe's form in a browser takes a card. No card data comes here.",
        request=None,
        responses={200: SetupIntent},
        tags=["Billing"],
    )
    def post(self, request: PartnerRequest) -> Response:
        return Response({"client_secret": self.made}, headers={"Cache-Control": "no-store"})

    def make(self, idempotency_key: str | None) -> str:
        return customers.setup_intent(self.customer_id, idempotency_key=idempotency_key)


def _raw_body(request: Any) -> bytes:
    """As it came: parsing would lose what the signature is over."""
    length = request.META.get("CONTENT_LENGTH") or "0"
    if not length.isdigit() or int(length) > MAX_BYTES:
        raise Problem("payload_too_large", "A webhook of Stripe's has at most 1 MiB.")
    body: bytes = request._request.body  # noqa: SLF001 - DRF offers the bytes only so
    return body


def _customer_of(request: PartnerRequest) -> StripeCustomer:
    if not request.api_key.livemode:
        raise Problem("forbidden", "Payment methods are kept with a live key.")
    found = StripeCustomer.objects.filter(partner=request.partner, is_deleted=False).first()
    if found is None or not stripe_client.is_configured():
        raise Problem("payments_not_set_up", "There is no account at Stripe for you yet.")
    return found


def _problem(fault: StripeFault) -> Problem:
    if fault.code == _RUNNING:
        return idempotency.in_progress()
    log.warning("stripe_call_failed", code=fault.code, reason=fault.message)
    return Problem(
        "payments_unavailable", "Stripe did not answer as expected.", headers={"Retry-After": "30"}
    )


def _hint(event_id: str) -> None:
    """The row is the truth; without a broker beat finds it."""
    try:
        broker.send("billing.tasks.process_stripe_event", event_id)
    except OperationalError as error:
        log.warning("broker_unavailable", reason=type(error).__name__)
