"""The v2 API of deeds. Each view parses, calls one use case, and shapes its answer."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar
from uuid import UUID

from django.conf import settings
from django.http import HttpResponseRedirect
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.response import Response

from billing import quotas
from billing.request_log import note_deeds
from deeds import answers, batches, catalog, documents, downloads, ordering, reading, waiting
from deeds.catalog import DEED_TYPES, DeedType
from deeds.models import Deed, DeedDownload
from deeds.queries import BatchBody, DeedQuery, parse_batch
from keys.authentication import PartnerRequest
from partner_api.http import request_id
from partner_api.http.idempotency import Provisional
from partner_api.http.negotiation import AnyAccept
from partner_api.http.pagination import page_of
from partner_api.http.problems import FieldError, Problem
from partner_api.http.reading import read_query
from partner_api.http.view import ApiView

_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?(?=$|[,;\s])")

PREFER = OpenApiParameter(
    "Prefer",
    str,
    OpenApiParameter.HEADER,
    description="`wait=N` (RFC 7240) waits up to N seconds, 30 at the most, for the deed.",
)


class Deeds(ApiView):
    scopes: ClassVar = {"GET": "deed:read", "POST": "deed:create"}
    problems: ClassVar = {"POST": ("order_conflict", "queue_full", *quotas.PROBLEMS)}
    idempotent: ClassVar = ("POST",)

    @extend_schema(
        operation_id="list_deeds",
        summary="List deeds",
        parameters=documents.DEED_QUERY,
        responses=answers.DeedPage,
        tags=["Deeds"],
    )
    def get(self, request: PartnerRequest) -> Response:
        query = read_query(DeedQuery, request)
        found = query.narrow(request.partner.deeds.filter(livemode=request.api_key.livemode))
        return page_of(found, request, answers.v2)

    @extend_schema(
        operation_id="create_deed",
        summary="Order a deed",
        description=(
            "Checks the order and queues it. The same order again, with the same body, answers 200 "
            "with the first deed and `Idempotent-Replayed: true`."
        ),
        parameters=[
            PREFER,
            documents.LOCATION,
            documents.REPLAYED,
            documents.PREFERENCE_APPLIED,
            *documents.QUOTA,
        ],
        request=documents.OrderBody,
        responses={
            200: OpenApiResponse(answers.DeedAnswer, "The same order was placed before."),
            201: OpenApiResponse(answers.DeedAnswer, "Completed while the request waited."),
            202: OpenApiResponse(answers.DeedAnswer, "Accepted."),
        },
        examples=documents.ORDER_EXAMPLES,
        tags=["Deeds"],
    )
    def post(self, request: PartnerRequest) -> Response:
        placement = ordering.place(origin_of(request, Deed.Source.V2), request.data)
        note_placements(request, [placement])
        seconds = wanted_wait(request)
        quota = quota_headers(request, placement)

        def answer() -> dict[str, Any]:
            deed = placement.deed
            is_made = deed.status == Deed.Status.COMPLETED
            headers = {"Location": _url(deed), **quota}
            if seconds is not None:
                headers["Preference-Applied"] = f"wait={seconds:.0f}"
            if not placement.is_new:
                headers["Idempotent-Replayed"] = "true"
                return {"data": answers.v2(deed), "status": 200, "headers": headers}
            return {"data": answers.v2(deed), "status": 201 if is_made else 202, "headers": headers}

        def after_waiting() -> Response:
            waiting.wait_for(placement.deed, seconds=seconds or 0.0)
            return Response(**answer())

        return Provisional(**answer(), then=after_waiting) if seconds else Response(**answer())


class DeedBatch(ApiView):
    scopes: ClassVar = {"POST": "deed:create"}
    idempotent: ClassVar = ("POST",)
    max_body_bytes = settings.BATCH_MAX_BYTES
    read_apart = "orders"

    @extend_schema(
        operation_id="create_deeds",
        summary="Order up to 500 deeds",
        description="Each order has its own result, in the order given; one that is refused does "
        "not keep the others from being accepted.",
        parameters=documents.QUOTA,
        request=BatchBody,
        responses={207: documents.BatchAnswer},
        examples=documents.BATCH_EXAMPLES,
        tags=["Deeds"],
    )
    def post(self, request: PartnerRequest) -> Response:
        origin = origin_of(request, Deed.Source.BATCH)
        of_request = request_id.of(request)
        outcomes = batches.place_all(origin, parse_batch(request.data))
        note_placements(request, outcomes)
        results = [_one_of_batch(outcome, of_request) for outcome in outcomes]
        quota = quotas.headers(request.partner, livemode=request.api_key.livemode)
        return Response({"data": results}, status=207, headers=quota)


class DeedValidation(ApiView):
    scopes: ClassVar = {"POST": "deed:create"}

    @extend_schema(
        operation_id="validate_order",
        summary="Check an order",
        description="The checks of an order, with nothing stored or charged.",
        request=documents.OrderBody,
        responses=answers.ValidationAnswer,
        examples=documents.ORDER_EXAMPLES,
        tags=["Deeds"],
    )
    def post(self, request: PartnerRequest) -> Response:
        order = reading.read(request.data)
        return Response({"valid": True, "errors": [], "warnings": order.warnings})


class DeedDetail(ApiView):
    scopes: ClassVar = {"GET": "deed:read"}

    @extend_schema(
        operation_id="get_deed",
        summary="Read a deed",
        responses=answers.DeedAnswer,
        tags=["Deeds"],
    )
    def get(self, request: PartnerRequest, deed_id: UUID) -> Response:
        return Response(answers.v2(own_deed(request, deed_id)))


class DeedPdf(ApiView):
    scopes: ClassVar = {"GET": "deed:read"}
    problems: ClassVar = {"GET": ("pdf_not_ready", "pdf_deleted")}
    content_negotiation_class = AnyAccept

    @extend_schema(
        operation_id="get_deed_pdf",
        summary="Get the PDF",
        parameters=[documents.PDF_LOCATION],
        responses={302: OpenApiResponse(None, "To a link that works for 24 hours.")},
        tags=["Deeds"],
    )
    def get(self, request: PartnerRequest, deed_id: UUID) -> HttpResponseRedirect:
        deed = own_deed(request, deed_id)
        url = answers.pdf_url(deed)
        if url is None:
            if deed.pdf_deleted_at is not None:
                raise Problem("pdf_deleted", answers.DELETED)
            raise Problem("pdf_not_ready", "The deed is not completed; read its status first.")
        downloads.record(request, deed, DeedDownload.Kind.KEY, who=request.api_key.prefix, status=302)
        return HttpResponseRedirect(url, headers={"Cache-Control": "no-store"})


class DeedCancellation(ApiView):
    scopes: ClassVar = {"POST": "deed:cancel"}
    idempotent: ClassVar = ("POST",)
    problems: ClassVar = {"POST": ("not_cancellable",)}
    parser_classes = []

    @extend_schema(
        operation_id="cancel_deed",
        summary="Cancel a deed",
        description="Only while it is queued.",
        request=None,
        responses=answers.DeedAnswer,
        tags=["Deeds"],
    )
    def post(self, request: PartnerRequest, deed_id: UUID) -> Response:
        deed = ordering.cancel(request.partner, livemode=request.api_key.livemode, deed_id=deed_id)
        return Response(answers.v2(deed))


class DeedTypes(ApiView):
    scopes: ClassVar = {"GET": "deed:read"}

    @extend_schema(
        operation_id="list_deed_types",
        summary="List deed types",
        responses=answers.DeedTypeList,
        tags=["Deed types"],
    )
    def get(self, request: PartnerRequest) -> Response:
        data = [_deed_type(deed_type) for deed_type in DEED_TYPES.values()]
        return Response({"data": data, "next": None, "previous": None})


class DeedTypeDetail(ApiView):
    scopes: ClassVar = {"GET": "deed:read"}

    @extend_schema(
        operation_id="get_deed_type",
        summary="Read a deed type",
        parameters=[
            OpenApiParameter("deed_type", OpenApiTypes.STR, OpenApiParameter.PATH, enum=list(DEED_TYPES))
        ],
        responses=answers.DeedTypeAnswer,
        tags=["Deed types"],
    )
    def get(self, request: PartnerRequest, deed_type: str) -> Response:
        if deed_type not in DEED_TYPES:
            raise unknown_deed_type(deed_type)
        return Response(_deed_type(DEED_TYPES[deed_type]))


def unknown_deed_type(deed_type: str) -> Problem:
    """For a type in an address: which there are, and which was meant."""
    near = catalog.nearest(deed_type)
    hint = f" Did you mean {near!r}?" if near else ""
    message = f"There is no deed type {deed_type[:60]!r}; there are {', '.join(DEED_TYPES)}.{hint}"
    return Problem("not_found", message, [FieldError("/deed_type", "unknown_deed_type", message, "path")])


def note_placements(request: PartnerRequest, outcomes: Sequence[ordering.Placement | Problem]) -> None:
    """Tells the request log which new deeds the request made."""
    new = [one.deed for one in outcomes if isinstance(one, ordering.Placement) and one.is_new]
    # A batch may hold one order twice; it is still one deed.
    note_deeds(request, Counter({deed.pk: deed.deed_type for deed in new}.values()))


def quota_headers(request: PartnerRequest, placement: ordering.Placement) -> dict[str, str]:
    if placement.is_new:
        return placement.headers
    return quotas.headers(request.partner, livemode=request.api_key.livemode)


def origin_of(request: PartnerRequest, source: str) -> ordering.Origin:
    return ordering.Origin(request.partner, request.api_key, source, request_id.of(request))


def own_deed(request: PartnerRequest, deed_id: UUID) -> Deed:
    """Raises Problem `not_found` for a deed of another partner or mode, as for none."""
    return ordering.find(request.partner, livemode=request.api_key.livemode, deed_id=deed_id)


def wanted_wait(request: PartnerRequest) -> float | None:
    """Seconds of `Prefer: wait=N` (RFC 7240 section 4.3), bounded; None without. Others are ignored."""
    match = _WAIT.search(request.headers.get("Prefer", ""))
    return min(float(match[1]), settings.PREFER_WAIT_MAX_SECONDS) if match else None


def _one_of_batch(outcome: ordering.Placement | Problem, of_request: str) -> dict[str, Any]:
    if isinstance(outcome, Problem):
        return {"status": outcome.status, "problem": outcome.as_dict(of_request)}
    return {"status": 202 if outcome.is_new else 200, "deed": answers.v2(outcome.deed)}


def _deed_type(deed_type: DeedType) -> dict[str, Any]:
    return {
        "deed_type": deed_type.slug,
        "title": deed_type.title,
        "required": deed_type.required,
        "unused": sorted(deed_type.unused),
        "json_schema": deed_type.json_schema(),
        "example": deed_type.example,
    }


def _url(deed: Deed) -> str:
    return f"{settings.PUBLIC_BASE_URL}{reverse('deed', kwargs={'deed_id': deed.pk})}"
