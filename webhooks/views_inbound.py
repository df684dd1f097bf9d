"""The open door: signed orders from the systems that partners work in."""

from typing import IO, Any, ClassVar

from django.conf import settings
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response

from keys.permissions import PUBLIC
from partner_api.http import request_id
from partner_api.http.parsing import limit_of, read_bounded
from partner_api.http.problems import Problem, not_found
from partner_api.http.times import rfc3339
from partner_api.http.view import ApiView
from webhooks import answers, door, inbound
from webhooks.documents import INBOUND_EXAMPLE
from webhooks.systems import SYSTEMS


class RawBody(BaseParser):
    """The bytes as they came: they were signed, not what they mean."""

    media_type = "*/*"

    def parse(self, stream: IO[Any], media_type: str | None = None, parser_context: Any = None) -> Any:
        """Raises Problem `payload_too_large`, before reading where the length was announced."""
        limit = limit_of(parser_context["view"])
        announced = parser_context["request"].META.get("CONTENT_LENGTH") or "0"
        if announced.isdigit() and int(announced) > limit:
            raise Problem("payload_too_large", f"The body has more than {limit:,} bytes.")
        return read_bounded(stream, limit)


class InboundWebhook(ApiView):
    scopes: ClassVar = {"POST": PUBLIC}
    problems: ClassVar = {
        "POST": ("invalid_signature", "stale_signature", "partner_suspended", "payload_too_large")
    }
    authentication_classes = []
    parser_classes = [RawBody]
    max_body_bytes = settings.WEBHOOKS_INBOUND_MAX_BYTES
    # By webhooks.door, which knows who has signed.
    is_limited = False

    @extend_schema(
        operation_id="receive_webhook",
        summary="Send an order from SoftPro or Qualia",
        description=(
            "Signed with HMAC-SHA256 over the raw body, or over `{timestamp}.{raw body}` with "
            "`X-Webhook-Timestamp`; the key is the text of the source's secret, which we hand over. The "
            "order is made after the answer. The same `X-Webhook-Id` (or the same body without one) again "
            "answers 200 with the first answer, and does nothing."
        ),
        parameters=[
            OpenApiParameter("system", str, OpenApiParameter.PATH, enum=sorted(SYSTEMS)),
            *(
                OpenApiParameter(name, str, OpenApiParameter.HEADER, description=description)
                for name, description in (
                    ("X-Signature", "Hex digest; also `X-SoftPro-Signature` or `X-Qualia-Signature`."),
                    ("X-Webhook-Timestamp", "Unix seconds, within 5 minutes; strict sources need it."),
                    ("X-Webhook-Id", "The event's identity; the body's SHA-256 without it."),
                    ("X-Webhook-Source", "A source's id; one of many of its system needs it."),
                )
            ),
            OpenApiParameter(
                "Idempotent-Replayed",
                str,
                OpenApiParameter.HEADER,
                description="`true`: it was received before.",
                response=["200"],
            ),
        ],
        request=OpenApiTypes.OBJECT,
        examples=[OpenApiExample("An order", INBOUND_EXAMPLE, request_only=True, media_type="*/*")],
        responses={
            200: OpenApiResponse(answers.InboundAnswer, "Received before."),
            202: OpenApiResponse(answers.InboundAnswer, "Stored."),
        },
        auth=[],
        tags=["Inbound webhooks"],
    )
    def post(self, request: Request, system: str) -> Response:
        try:
            acceptance = _accept(system, request)
        except Problem as problem:
            door.count_refusal(request, problem)
            raise
        answer = {
            "object": "inbound_event",
            "id": str(acceptance.id),
            "status": "accepted",
            "received_at": rfc3339(acceptance.received_at),
        }
        if acceptance.is_new:
            return Response(answer, status=202)
        return Response(answer, headers={"Idempotent-Replayed": "true"})


def _accept(system: str, request: Request) -> inbound.Acceptance:
    if system not in SYSTEMS:
        raise not_found()
    # Without a body there is nothing to parse, and DRF answers with something else than bytes.
    data: Any = request.data
    body = data if isinstance(data, bytes) else b""
    return inbound.accept(system, request.headers, body, request_id=request_id.of(request))
