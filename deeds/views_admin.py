"""All partners' deeds, for the company's back office."""

from typing import Any, ClassVar

from rest_framework.request import Request
from rest_framework.response import Response

from deeds import answers
from deeds.models import Deed
from deeds.queries import AllDeedsQuery, read_query
from keys.admin_auth import AdminApiView
from partner_api.http.pagination import NewestFirst


class AllDeeds(AdminApiView):
    roles: ClassVar = {"GET": "support"}

    def get(self, request: Request) -> Response:
        query = read_query(request, AllDeedsQuery)
        paginator = NewestFirst()
        page: list[Any] = (
            paginator.paginate_queryset(query.narrow(Deed.objects.all()), request, view=self) or []
        )
        return paginator.get_paginated_response(
            [{"partner": str(deed.partner_id), **answers.v2(deed)} for deed in page]
        )
