"""The first version's API, for clients that were written for it. Its orders are orders like any other."""

from typing import ClassVar
from uuid import UUID

from django.conf import settings
from django.urls import reverse
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.response import Response

from deeds import answers, catalog, documents, ordering, v1, waiting
from deeds.catalog import DEED_TYPES
from deeds.models import Deed
from deeds.views import origin_of, own_deed
from keys.authentication import PartnerRequest
from partner_api.http.problems import FieldError, Problem
from partner_api.http.view import ApiView


class V1Deeds(ApiView):
    scopes: ClassVar = {"POST": "deed:create"}
    problems: ClassVar = {"POST": ("order_conflict", "deed_failed", "not_found")}

    @extend_schema(
        operation_id="v1_create_deed",
        summary="Order a deed and wait for it",
        description="Waits up to 25 seconds. New clients use `POST /v2/deeds`.",
        parameters=[
            OpenApiParameter("deed_type", str, OpenApiParameter.PATH, enum=list(DEED_TYPES)),
            documents.V1_LOCATION,
        ],
        request=documents.V1Order,
        responses={
            200: OpenApiResponse(answers.V1Created, "Completed."),
            202: OpenApiResponse(answers.V1Created, "Still rendering; ask at `Location`."),
        },
        examples=documents.V1_EXAMPLES,
        tags=["First version"],
    )
    def post(self, request: PartnerRequest, deed_type: str) -> Response:
        if deed_type not in DEED_TYPES:
            raise _unknown(deed_type)
        origin = origin_of(request, Deed.Source.V1)
        placement = ordering.place_read(origin, v1.read(deed_type, request.data))
        deed = waiting.wait_for(placement.deed, seconds=settings.V1_WAIT_SECONDS)
        headers = {} if placement.is_new else {"Idempotent-Replayed": "true"}
        if deed.status == Deed.Status.COMPLETED:
            return Response(answers.v1_created(deed), headers=headers)
        if deed.status == Deed.Status.FAILED:
            extra = {"external_deed_id": str(deed.pk), "order_id": deed.order_id}
            raise Problem("deed_failed", deed.failure_message, extra=extra)
        path = reverse("v1-deed", kwargs={"deed_id": deed.pk})
        headers["Location"] = f"{settings.PUBLIC_BASE_URL}{path}"
        return Response(answers.v1_created(deed), status=202, headers=headers)


class V1DeedDetail(ApiView):
    scopes: ClassVar = {"GET": "deed:read"}

    @extend_schema(
        operation_id="v1_get_deed",
        summary="Read a deed",
        responses=answers.V1Deed,
        tags=["First version"],
    )
    def get(self, request: PartnerRequest, deed_id: UUID) -> Response:
        return Response(answers.v1(own_deed(request, deed_id)))


def _unknown(deed_type: str) -> Problem:
    near = catalog.nearest(deed_type)
    hint = f" Did you mean {near!r}?" if near else ""
    message = f"There is no deed type {deed_type[:60]!r}; there are {', '.join(DEED_TYPES)}.{hint}"
    return Problem("not_found", message, [FieldError("/deed_type", "unknown_deed_type", message, "path")])
