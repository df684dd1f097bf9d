"""The v2 API of outbound webhooks: endpoints, events, deliveries. Each view parses and calls one use case."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar
from uuid import UUID

from django.conf import settings
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.response import Response

from keys.audit import Actor
from keys.authentication import PartnerRequest
from partner_api.http.pagination import page_of
from partner_api.http.problems import not_found
from partner_api.http.reading import PageQuery, read_body, read_query
from partner_api.http.view import ApiView
from webhooks import answers, outbox, registering
from webhooks.addresses import why_refused
from webhooks.event_types import EVENT_TYPES, wants
from webhooks.models import Delivery, Endpoint, Event
from webhooks.reading import (
    DeliveryQuery,
    EndpointBody,
    EndpointChange,
    EventQuery,
    ReplayBody,
)

MANAGE = "webhook:manage"
# drf-spectacular takes a pydantic model here as it takes a serializer; its types don't know.
_PAGE: list[Any] = [PageQuery]
_EVENT_QUERY: list[Any] = [EventQuery]
_DELIVERY_QUERY: list[Any] = [DeliveryQuery]


class Endpoints(ApiView):
    scopes: ClassVar = {"GET": MANAGE, "POST": MANAGE}
    idempotent: ClassVar = ("POST",)

    @extend_schema(
        operation_id="list_webhook_endpoints",
        summary="List webhook endpoints",
        parameters=_PAGE,
        responses=answers.EndpointPage,
        tags=["Webhooks"],
    )
    def get(self, request: PartnerRequest) -> Response:
        read_query(PageQuery, request)
        standing = request.partner.webhook_endpoints.standing()
        return page_of(standing.filter(livemode=request.api_key.livemode), request, answers.endpoint)

    @extend_schema(
        operation_id="create_webhook_endpoint",
        summary="Register a webhook endpoint",
        description="The answer shows the secret that signs messages, this once.",
        request=EndpointBody,
        responses={201: answers.EndpointWithSecret},
        tags=["Webhooks"],
    )
    def post(self, request: PartnerRequest) -> Response:
        endpoint, secret = registering.create(
            _actor(request),
            request.partner,
            self.wanted,
            livemode=request.api_key.livemode,
            refusal=self.refusal,
        )
        headers = {"Cache-Control": "no-store"}
        return Response(answers.endpoint(endpoint, secret=secret), status=201, headers=headers)

    @contextmanager
    def around(self, request: PartnerRequest) -> Iterator[None]:
        """Asks whether the URL leads to a public address."""
        self.wanted = read_body(EndpointBody, request.data)
        self.refusal = why_refused(self.wanted.url)
        yield


class EndpointDetail(ApiView):
    scopes: ClassVar = {"GET": MANAGE, "PATCH": MANAGE, "DELETE": MANAGE}
    problems: ClassVar = {"PATCH": ("endpoint_disabled_by_staff",)}

    @extend_schema(
        operation_id="get_webhook_endpoint",
        summary="Read a webhook endpoint",
        responses=answers.EndpointAnswer,
        tags=["Webhooks"],
    )
    def get(self, request: PartnerRequest, endpoint_id: UUID) -> Response:
        return Response(answers.endpoint(_endpoint(request, endpoint_id)))

    @extend_schema(
        operation_id="change_webhook_endpoint",
        summary="Change a webhook endpoint",
        description=(
            "`enabled: true` starts sending again; what was missed is sent by a replay. Another `url` begins "
            "with a clean record."
        ),
        request=EndpointChange,
        responses=answers.EndpointAnswer,
        tags=["Webhooks"],
    )
    def patch(self, request: PartnerRequest, endpoint_id: UUID) -> Response:
        endpoint = _endpoint(request, endpoint_id)
        registering.change(_actor(request), endpoint, read_body(EndpointChange, request.data))
        return Response(answers.endpoint(endpoint))

    @extend_schema(
        operation_id="delete_webhook_endpoint",
        summary="Delete a webhook endpoint",
        description="Its deliveries stay readable; nothing is sent to it any more.",
        responses={204: OpenApiResponse(None, "Deleted.")},
        tags=["Webhooks"],
    )
    def delete(self, request: PartnerRequest, endpoint_id: UUID) -> Response:
        registering.delete(_actor(request), _endpoint(request, endpoint_id))
        return Response(status=204)


class EndpointTest(ApiView):
    scopes: ClassVar = {"POST": MANAGE}
    idempotent: ClassVar = ("POST",)
    problems: ClassVar = {"POST": ("endpoint_disabled",)}
    parser_classes = []

    @extend_schema(
        operation_id="test_webhook_endpoint",
        summary="Send a test message",
        description="A `webhook.test` event, whatever types the endpoint wants.",
        request=None,
        responses={202: answers.DeliveryAnswer},
        tags=["Webhooks"],
    )
    def post(self, request: PartnerRequest, endpoint_id: UUID) -> Response:
        delivery = outbox.send_test(_endpoint(request, endpoint_id))
        return Response(answers.delivery(delivery), status=202)


class EndpointSecret(ApiView):
    scopes: ClassVar = {"POST": MANAGE}
    idempotent: ClassVar = ("POST",)
    parser_classes = []

    @extend_schema(
        operation_id="rotate_webhook_secret",
        summary="Rotate the secret",
        description=(
            f"For {settings.WEBHOOKS_SECRET_OVERLAP_HOURS:g} hours messages carry a signature by each of the "
            "secrets that still hold."
        ),
        request=None,
        responses=answers.EndpointWithSecret,
        tags=["Webhooks"],
    )
    def post(self, request: PartnerRequest, endpoint_id: UUID) -> Response:
        endpoint = _endpoint(request, endpoint_id)
        secret = registering.rotate(_actor(request), endpoint)
        return Response(answers.endpoint(endpoint, secret=secret), headers={"Cache-Control": "no-store"})


class EndpointReplay(ApiView):
    scopes: ClassVar = {"POST": MANAGE}
    idempotent: ClassVar = ("POST",)
    problems: ClassVar = {"POST": ("endpoint_disabled",)}

    @extend_schema(
        operation_id="replay_webhook_events",
        summary="Send events once more",
        description=(
            "All since a time that the endpoint wants, with the ids they had; at most "
            f"{outbox.MAX_REPLAYED:,} at once, which `until` helps to keep to."
        ),
        request=ReplayBody,
        responses={202: answers.ReplayAnswer},
        tags=["Webhooks"],
    )
    def post(self, request: PartnerRequest, endpoint_id: UUID) -> Response:
        endpoint = _endpoint(request, endpoint_id)
        body = read_body(ReplayBody, request.data)
        queued = outbox.replay(
            endpoint, since=body.since, until=body.until, undelivered_only=body.undelivered_only
        )
        return Response({"queued": queued}, status=202)


class Events(ApiView):
    scopes: ClassVar = {"GET": MANAGE}

    @extend_schema(
        operation_id="list_events",
        summary="List events",
        parameters=_EVENT_QUERY,
        responses=answers.EventPage,
        tags=["Webhooks"],
    )
    def get(self, request: PartnerRequest) -> Response:
        query = read_query(EventQuery, request)
        found = request.partner.events.filter(livemode=request.api_key.livemode)
        if query.type is not None:
            found = found.filter(type__in=[name for name in EVENT_TYPES if wants([query.type], name)])
        return page_of(found, request, answers.event)


class EventDetail(ApiView):
    scopes: ClassVar = {"GET": MANAGE}

    @extend_schema(
        operation_id="get_event",
        summary="Read an event",
        responses=answers.EventAnswer,
        tags=["Webhooks"],
    )
    def get(self, request: PartnerRequest, event_id: UUID) -> Response:
        event: Event | None = request.partner.events.filter(
            livemode=request.api_key.livemode, pk=event_id
        ).first()
        if event is None:
            raise not_found()
        return Response(answers.event(event))


class Deliveries(ApiView):
    scopes: ClassVar = {"GET": MANAGE}

    @extend_schema(
        operation_id="list_webhook_deliveries",
        summary="List deliveries",
        parameters=_DELIVERY_QUERY,
        responses=answers.DeliveryPage,
        tags=["Webhooks"],
    )
    def get(self, request: PartnerRequest) -> Response:
        query = read_query(DeliveryQuery, request)
        found = request.partner.webhook_deliveries.filter(
            livemode=request.api_key.livemode, **query.filters()
        )
        return page_of(found.select_related("event"), request, answers.delivery)


class DeliveryDetail(ApiView):
    scopes: ClassVar = {"GET": MANAGE}

    @extend_schema(
        operation_id="get_webhook_delivery",
        summary="Read a delivery and its attempts",
        responses=answers.DeliveryWithLog,
        tags=["Webhooks"],
    )
    def get(self, request: PartnerRequest, delivery_id: UUID) -> Response:
        return Response(answers.delivery_with_log(_delivery(request, delivery_id)))


class DeliveryResend(ApiView):
    scopes: ClassVar = {"POST": MANAGE}
    idempotent: ClassVar = ("POST",)
    problems: ClassVar = {"POST": ("endpoint_disabled",)}
    parser_classes = []

    @extend_schema(
        operation_id="resend_webhook_delivery",
        summary="Send a delivery once more",
        request=None,
        responses={202: answers.DeliveryAnswer},
        tags=["Webhooks"],
    )
    def post(self, request: PartnerRequest, delivery_id: UUID) -> Response:
        delivery = _delivery(request, delivery_id)
        outbox.resend(delivery)
        return Response(answers.delivery(_delivery(request, delivery_id)), status=202)


def _endpoint(request: PartnerRequest, endpoint_id: UUID) -> Endpoint:
    """Raises Problem `not_found` for one of another partner or mode, or that was deleted."""
    standing = request.partner.webhook_endpoints.standing().select_related("partner")
    endpoint: Endpoint | None = standing.filter(livemode=request.api_key.livemode, pk=endpoint_id).first()
    if endpoint is None:
        raise not_found()
    return endpoint


def _delivery(request: PartnerRequest, delivery_id: UUID) -> Delivery:
    deliveries = request.partner.webhook_deliveries.filter(livemode=request.api_key.livemode)
    delivery: Delivery | None = deliveries.select_related("event", "endpoint").filter(pk=delivery_id).first()
    if delivery is None:
        raise not_found()
    return delivery


def _actor(request: PartnerRequest) -> Actor:
    return Actor.key(request, request.api_key)
