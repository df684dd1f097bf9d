"""The first version's API, for clients that were written for it. Its orders are orders like any other."""

from typing import Any, ClassVar
from uuid import UUID

from django.conf import settings
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.response import Response

from billing import quotas
from deeds import answers, documents, ordering, v1, waiting
from deeds.catalog import DEED_TYPES
from deeds.models import Deed
from deeds.views import note_placements, origin_of, own_deed, quota_headers, unknown_deed_type
from keys.authentication import PartnerRequest
from partner_api.http.idempotency import Provisional
from partner_api.http.problems import Problem, not_found
from partner_api.http.view import ApiView


class V1Deed(ApiView):
    # One address with two meanings: a deed type is ordered, a deed's id is read.
    scopes: ClassVar = {"GET": "deed:read", "POST": "deed:create"}
    problems: ClassVar = {"POST": ("order_conflict", "queue_full", "deed_failed", *quotas.PROBLEMS)}
    idempotent: ClassVar = ("POST",)

    @extend_schema(
        operation_id="v1_create_deed",
        summary="Order a deed and wait for it",
        description="Waits up to 25 seconds. New clients use `POST /v2/deeds`.",
        parameters=[
            OpenApiParameter(
                "deed", str, OpenApiParameter.PATH, enum=list(DEED_TYPES), description="The deed type."
            ),
            documents.V1_LOCATION,
            *documents.QUOTA,
        ],
        request=documents.V1Order,
        responses={
            200: OpenApiResponse(answers.V1Created, "Completed."),
            202: OpenApiResponse(answers.V1Created, "Still rendering; ask at `Location`."),
        },
        examples=documents.V1_EXAMPLES,
        tags=["First version"],
    )
    def post(self, request: PartnerRequest, deed: str) -> Response:
        if deed not in DEED_TYPES:
            raise unknown_deed_type(deed)
        origin = origin_of(request, Deed.Source.V1)
        placement = ordering.place_read(origin, v1.read(deed, request.data))
        note_placements(request, [placement])
        quota = quota_headers(request, placement)

        def after_waiting() -> Response:
            waiting.wait_for(placement.deed, seconds=settings.V1_WAIT_SECONDS)
            return Response(**_answer(placement, quota))

        return Provisional(**_answer(placement, quota), then=after_waiting)

    @extend_schema(
        operation_id="v1_get_deed",
        summary="Read a deed",
        parameters=[
            OpenApiParameter(
                "deed", OpenApiTypes.UUID, OpenApiParameter.PATH, description="Its `external_deed_id`."
            )
        ],
        responses=answers.V1Deed,
        tags=["First version"],
    )
    def get(self, request: PartnerRequest, deed: str) -> Response:
        try:
            deed_id = UUID(deed)
        except ValueError as error:
            raise not_found() from error
        return Response(answers.v1(own_deed(request, deed_id)))


def _answer(placement: ordering.Placement, quota: dict[str, str]) -> dict[str, Any]:
    """Data, status and headers. Raises Problem `deed_failed`."""
    placed = placement.deed
    headers = quota | ({} if placement.is_new else {"Idempotent-Replayed": "true"})
    if placed.status == Deed.Status.COMPLETED:
        return {"data": answers.v1_created(placed), "status": 200, "headers": headers}
    if placed.status == Deed.Status.FAILED:
        extra = {"external_deed_id": str(placed.pk), "order_id": placed.order_id}
        raise Problem("deed_failed", placed.failure_message, extra=extra)
    path = reverse("v1-deed", kwargs={"deed": placed.pk})
    headers["Location"] = f"{settings.PUBLIC_BASE_URL}{path}"
    return {"data": answers.v1_created(placed), "status": 202, "headers": headers}
