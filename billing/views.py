"""A partner's own invoices and account."""

from functools import partial
from typing import Any, ClassVar
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework.response import Response

from billing import answers
from billing.models import Invoice
from keys.authentication import PartnerRequest
from partner_api.http.pagination import page_of
from partner_api.http.problems import not_found
from partner_api.http.reading import PageQuery, read_query
from partner_api.http.view import ApiView

# drf-spectacular takes a pydantic model here as it takes a serializer; its types don't know.
_PAGE: list[Any] = [PageQuery]


class Invoices(ApiView):
    scopes: ClassVar = {"GET": "billing:read"}

    @extend_schema(
        operation_id="list_invoices",
        summary="List invoices",
        parameters=_PAGE,
        responses=answers.InvoicePage,
        tags=["Billing"],
    )
    def get(self, request: PartnerRequest) -> Response:
        read_query(PageQuery, request)
        return page_of(_own(request), request, partial(answers.invoice, with_lines=False))


class InvoiceDetail(ApiView):
    scopes: ClassVar = {"GET": "billing:read"}

    @extend_schema(
        operation_id="get_invoice",
        summary="Read an invoice",
        responses=answers.InvoiceAnswer,
        tags=["Billing"],
    )
    def get(self, request: PartnerRequest, invoice_id: UUID) -> Response:
        row = _own(request).filter(pk=invoice_id).first()
        if row is None:
            raise not_found()
        return Response(answers.invoice(row, with_lines=True))


class Billing(ApiView):
    scopes: ClassVar = {"GET": "billing:read"}

    @extend_schema(
        operation_id="get_billing",
        summary="Read the running period",
        description="What is used, what it will cost and what is allowed. Live orders only.",
        responses=answers.BillingAnswer,
        tags=["Billing"],
    )
    def get(self, request: PartnerRequest) -> Response:
        return Response(answers.account(request.partner))


def _own(request: PartnerRequest) -> QuerySet[Invoice]:
    """The partner's invoices. Test mode is never billed, and so has none."""
    invoices = request.partner.invoices.select_related("period")
    return invoices if request.api_key.livemode else invoices.none()
