"""A partner's own invoices and account."""

import re
from typing import ClassVar
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.response import Response

from billing import answers
from billing.models import Invoice
from keys.authentication import PartnerRequest
from partner_api.http.pagination import MAX_LIMIT, NewestFirst
from partner_api.http.problems import FieldError, invalid, not_found
from partner_api.http.view import ApiView

_PAGE_PARAMETERS = {"limit", "cursor"}
_PAGE_DOCUMENTS = [
    OpenApiParameter("limit", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}),
    OpenApiParameter("cursor", str, description="From `next` or `previous` of another page."),
]


class Invoices(ApiView):
    scopes: ClassVar = {"GET": "billing:read"}

    @extend_schema(
        operation_id="list_invoices",
        summary="List invoices",
        parameters=_PAGE_DOCUMENTS,
        responses=answers.InvoicePage,
        tags=["Billing"],
    )
    def get(self, request: PartnerRequest) -> Response:
        _refuse_unknown_parameters(request)
        paginator = NewestFirst()
        page = paginator.paginate_queryset(_own(request), request, view=self)
        return paginator.get_paginated_response(
            [answers.invoice(row, with_lines=False) for row in page or []]
        )


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


def _refuse_unknown_parameters(request: PartnerRequest) -> None:
    given = request.query_params
    errors = [
        FieldError(f"/{name}", "unknown_parameter", "There are limit and cursor.", where="query")
        for name in given
        if name not in _PAGE_PARAMETERS
    ]
    limit = given.get("limit")
    if limit is not None and not (re.fullmatch(r"[0-9]{1,4}", limit) and 1 <= int(limit) <= MAX_LIMIT):
        message = f"It must be a whole number from 1 to {MAX_LIMIT}."
        errors.append(FieldError("/limit", "invalid_value", message, where="query"))
    if errors:
        raise invalid(errors)
