"""Usage over HTTP: a partner's own, and everyone's for staff."""

from typing import ClassVar

from drf_spectacular.utils import OpenApiParameter, extend_schema
from pydantic import BaseModel
from rest_framework.request import Request
from rest_framework.response import Response

from billing.usage import Question, series
from billing.usage_query import (
    MAX_POINTS,
    StaffUsageQuery,
    UsageAnswer,
    UsageQuery,
    answer,
)
from keys.admin_auth import AdminApiView
from keys.authentication import PartnerRequest
from partner_api.http.reading import read_query
from partner_api.http.view import ApiView


def _parameters(model: type[BaseModel]) -> list[OpenApiParameter]:
    schemas = model.model_json_schema()["properties"]
    return [
        OpenApiParameter(
            name,
            {key: value for key, value in schema.items() if key not in {"title", "description"}},
            description=schema.get("description", ""),
        )
        for name, schema in schemas.items()
    ]


class Usage(ApiView):
    scopes: ClassVar = {"GET": "usage:read"}

    @extend_schema(
        operation_id="get_usage",
        summary="Read your usage",
        description="Requests, errors, deeds, cost units and latencies of the key's partner and mode, up "
        "to a few seconds ago. Counted in whole hours in UTC; the answer says which.",
        parameters=_parameters(UsageQuery),
        responses=UsageAnswer,
        tags=["Usage"],
    )
    def get(self, request: PartnerRequest) -> Response:
        query = read_query(UsageQuery, request)
        question = Question(
            query.range(),
            query.interval,
            query.group_by,
            partner=request.partner.pk,
            livemode=request.api_key.livemode,
            limit=MAX_POINTS + 1,
        )
        return Response(answer(question, series(question)))


class StaffUsage(AdminApiView):
    """`GET /admin-api/v1/usage`."""

    roles: ClassVar = {"GET": "support"}

    def get(self, request: Request) -> Response:
        query = read_query(StaffUsageQuery, request)
        question = Question(
            query.range(),
            query.interval,
            query.group_by,
            partner=query.partner,
            livemode=query.livemode,
            limit=MAX_POINTS + 1,
        )
        return Response(answer(question, series(question)))
