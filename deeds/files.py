"""Hands out PDFs by signed link. Whoever has the link may read; a wrong one looks like no page."""

from typing import ClassVar
from uuid import UUID

from django.http import FileResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.request import Request

from deeds import order_metrics, storage
from deeds.models import Deed
from keys.permissions import PUBLIC
from partner_api.http import signed_links
from partner_api.http.negotiation import AnyAccept
from partner_api.http.problems import not_found
from partner_api.http.view import ApiView


class PdfFile(ApiView):
    scopes: ClassVar = {"GET": PUBLIC}
    authentication_classes = []
    content_negotiation_class = AnyAccept

    @extend_schema(
        operation_id="download_pdf",
        summary="Download a PDF",
        description="The address that `pdf.url` and `GET /v2/deeds/{id}/pdf` give; it expires.",
        parameters=[
            OpenApiParameter("expires", OpenApiTypes.STR, required=True),
            OpenApiParameter("signature", OpenApiTypes.STR, required=True),
        ],
        responses={(200, "application/pdf"): OpenApiResponse(OpenApiTypes.BINARY, "The PDF.")},
        tags=["Deeds"],
    )
    def get(self, request: Request, deed_id: UUID) -> FileResponse:
        query = request.query_params
        expires, signature = query.get("expires", ""), query.get("signature", "")
        if not signed_links.is_valid(request.path, expires, signature):
            raise not_found()
        deed = Deed.objects.filter(pk=deed_id, status=Deed.Status.COMPLETED).first()
        if deed is None:
            raise not_found()
        try:
            content = storage.open_pdf(deed)
        except FileNotFoundError as error:
            order_metrics.STORAGE_ERRORS.labels("read").inc()
            raise not_found() from error
        response = FileResponse(
            content,
            as_attachment=True,
            filename=storage.file_name(deed),
            content_type="application/pdf",
        )
        response["Cache-Control"] = "private, no-store"
        return response
