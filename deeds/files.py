"""Hands out PDFs by signed link, and logs each use. Whoever has the link may read; a wrong one is no page."""

import datetime as dt
from http import HTTPStatus
from typing import ClassVar
from uuid import UUID

import structlog
from django.http import HttpResponse, HttpResponseRedirect
from django.utils import timezone
from django.utils.http import content_disposition_header
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.request import Request

from deeds import answers, documents, downloads, metrics, storage, verifying
from deeds.models import Deed, DeedDownload
from deeds.stores import StoreUnavailable
from keys.permissions import PUBLIC
from partner_api.http import signed_links
from partner_api.http.negotiation import AnyAccept
from partner_api.http.problems import Problem, not_found
from partner_api.http.view import ApiView

log = structlog.get_logger(__name__)


class PdfFile(ApiView):
    scopes: ClassVar = {"GET": PUBLIC}
    problems: ClassVar = {"GET": ("pdf_deleted", "storage_unavailable")}
    authentication_classes = []
    content_negotiation_class = AnyAccept

    @extend_schema(
        operation_id="download_pdf",
        summary="Download a PDF",
        description="The address that `pdf.url` and `GET /v2/deeds/{id}/pdf` give; it expires.",
        parameters=[
            OpenApiParameter("expires", OpenApiTypes.STR, required=True),
            OpenApiParameter("signature", OpenApiTypes.STR, required=True),
            documents.FILE_LOCATION,
            documents.FILE_NAME,
        ],
        responses={
            (200, "application/pdf"): OpenApiResponse(OpenApiTypes.BINARY, "The PDF."),
            302: OpenApiResponse(None, "To the storage's own address of the PDF."),
        },
        tags=["Deeds"],
    )
    def get(self, request: Request, deed_id: UUID) -> HttpResponse:
        query = request.query_params
        expires, signature = query.get("expires", ""), query.get("signature", "")
        if not signed_links.is_valid(request.path, expires, signature):
            raise not_found()
        deed = Deed.objects.filter(pk=deed_id, status=Deed.Status.COMPLETED).first()
        if deed is None:
            raise not_found()
        if not deed.has_pdf:
            raise Problem("pdf_deleted", answers.DELETED)
        try:
            response = _response(deed, expires_at=dt.datetime.fromtimestamp(int(expires), dt.UTC))
        except StoreUnavailable as error:
            metrics.STORAGE_ERRORS.labels("read").inc()
            log.warning("storage_unavailable", deed=str(deed.pk), reason=str(error))
            detail = "The PDF is there, but can't be read now."
            raise Problem("storage_unavailable", detail, headers={"Retry-After": "30"}) from error
        # Who was given an address may use it, whatever they asked for.
        if request.method == "GET" or response.status_code == HTTPStatus.FOUND:
            downloads.record(request, deed, DeedDownload.Kind.LINK, status=response.status_code)
        return response


def _response(deed: Deed, *, expires_at: dt.datetime) -> HttpResponse:
    """The PDF, or the way to it where the storage has an address of its own."""
    elsewhere = storage.address_of(deed, now=timezone.now(), expires_at=expires_at)
    if elsewhere is not None:
        return HttpResponseRedirect(elsewhere, headers={"Cache-Control": "private, no-store"})
    content = storage.read(deed)
    if content is None:
        if not verifying.note_missing(deed):
            raise Problem("pdf_deleted", answers.DELETED)
        raise not_found()
    disposition = content_disposition_header(as_attachment=True, filename=storage.file_name(deed)) or ""
    headers = {"Content-Disposition": disposition, "Cache-Control": "private, no-store"}
    return HttpResponse(content, content_type="application/pdf", headers=headers)
